"""Newton's method on problems whose minimum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from junlearn import curvature
from junlearn.loss import cross_entropy
from tests import problems

L2 = 0.05
MAPS = {"pmap": jax.pmap, "vmap": lambda f, **k: jax.jit(jax.vmap(f, **k))}


def regularized(problem, examples, axis_name=None):
  """Gradient and Hessian of the mean loss plus `L2 / 2 |x|^2`."""
  loss = cross_entropy(problem.model)

  def gradient(x):
    mean = curvature.gradient(loss, x, examples, axis_name=axis_name)
    return jax.tree.map(lambda g, p: g + L2 * p, mean, x)

  def operator(x):
    return curvature.hessian(loss, x, examples, damping=L2, axis_name=axis_name)

  return gradient, operator


def start(problem):
  return jax.tree.map(jnp.ones_like, problem.init())


def solution(problem):
  """The minimum by SciPy."""
  flat, unravel = ravel_pytree(start(problem))
  gradient, _ = regularized(problem, problem.examples)
  found = scipy.optimize.root(
    lambda x: np.asarray(ravel_pytree(gradient(unravel(jnp.asarray(x))))[0]),
    np.asarray(flat),
    tol=1e-13,
  )
  return found.x


@pytest.mark.usefixtures("x64")
def test_finds_the_minimum_of_a_convex_problem():
  problem = problems.logistic()
  gradient, operator = regularized(problem, problem.examples)
  x, info = jax.jit(
    lambda x: curvature.newton(
      gradient, operator, x, num_steps=12, target=1e-12
    )
  )(start(problem))
  np.testing.assert_allclose(ravel_pytree(x)[0], solution(problem), atol=1e-11)
  true = np.linalg.norm(ravel_pytree(gradient(x))[0])
  np.testing.assert_allclose(info.residual, true, rtol=1e-3)
  assert info.converged
  assert true <= 1e-12
  assert info.residuals.shape == (13,)
  assert info.residuals[-1] == info.residual
  steps = int(info.steps)
  assert 2 <= steps < 12
  assert np.all(np.diff(info.residuals[: steps + 1]) < 0)
  assert np.all(info.residuals[steps:] == info.residual)
  assert np.all(info.lengths[:steps] > 0)
  assert not np.any(info.lengths[steps:])
  assert np.all(info.solves.converged[:steps])
  assert not np.any(info.solves.steps[steps:])


@pytest.mark.usefixtures("x64")
def test_one_step_on_a_quadratic_is_exact():
  rng = np.random.default_rng(0)
  root = rng.normal(size=(6, 6))
  a, b = jnp.asarray(root @ root.T + np.eye(6)), jnp.asarray(rng.normal(size=6))
  x, info = curvature.newton(
    lambda x: a @ x - b, lambda x: lambda v: a @ v, jnp.zeros(6),
    num_steps=1, tolerance=1e-13,
  )  # fmt: skip
  np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-10)
  assert info.steps == 1
  assert not info.converged  # the target is 0
  np.testing.assert_allclose(
    info.solves.residual[0], info.residual, rtol=0.5, atol=1e-14
  )


def test_backtracks_where_a_whole_step_overshoots():
  """`arctan x = 0` from 3: Newton's own steps diverge."""
  x, info = curvature.newton(
    jnp.arctan,
    lambda x: lambda v: v / (1 + x**2),
    jnp.float32(3),
    num_steps=10,
    target=1e-6,
  )
  assert info.converged
  assert 0 < info.lengths[0] < 1
  assert abs(x) <= 1e-6


def test_stops_where_nothing_helps():
  """A gradient without a zero; and a curvature of the wrong sign."""
  x, info = curvature.newton(
    lambda x: 1 + x**2, lambda x: lambda v: v, jnp.float32(0), num_steps=4
  )
  assert x == 0
  assert info.steps == 0
  assert not info.converged
  x, info = curvature.newton(
    lambda x: x, lambda x: lambda v: -v, jnp.float32(1), num_steps=4
  )
  assert x == 1
  assert info.solves.indefinite[0]
  assert not info.converged


def test_a_target_already_met_takes_no_step():
  x, info = curvature.newton(
    lambda x: x, lambda x: lambda v: v, jnp.float32(1), num_steps=2, target=1
  )
  assert x == 1
  assert info.steps == 0
  assert info.converged


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", MAPS)
def test_members_share_one_solve(backend):
  """A block a member, coupled by the operator; inner adds up over members."""
  rng = np.random.default_rng(1)
  root = rng.normal(size=(12, 12))
  a, b = root @ root.T + 2 * np.eye(12), rng.normal(size=12)
  rows = jnp.asarray(a.reshape(4, 3, 12))

  def member(rows, b):
    def product(v):
      return rows @ jax.lax.all_gather(v, "members", tiled=True)

    return curvature.newton(
      lambda x: product(x) - b,
      lambda x: product,
      jnp.zeros(3),
      num_steps=5,
      target=1e-10,
      inner=lambda u, v: jax.lax.psum(jnp.vdot(u, v), "members"),
    )

  x, info = MAPS[backend](member, axis_name="members")(
    rows, jnp.asarray(b.reshape(4, 3))
  )
  np.testing.assert_allclose(x.reshape(-1), np.linalg.solve(a, b), atol=1e-10)
  assert np.all(info.converged)
  assert len(set(np.asarray(info.residual))) == 1


@pytest.mark.usefixtures("x64")
def test_shards_of_examples_give_the_whole_minimum():
  problem = problems.logistic()
  shards = jax.tree.map(
    lambda x: x.reshape(4, -1, *x.shape[1:]), problem.examples
  )

  def device(shard, x):
    return curvature.newton(
      *regularized(problem, shard, "shards"), x, num_steps=12, target=1e-12
    )[0]

  x = jax.pmap(device, in_axes=(0, None), axis_name="shards")(
    shards, start(problem)
  )
  expected = solution(problem)
  for row in range(4):
    flat = ravel_pytree(jax.tree.map(lambda leaf, r=row: leaf[r], x))[0]
    np.testing.assert_allclose(flat, expected, atol=1e-11)


def test_keeps_single_precision_and_structure():
  problem = problems.blobs(hidden=5)
  gradient, operator = regularized(problem, problem.examples)
  before = problem.init()
  after = jax.eval_shape(
    lambda x: curvature.newton(
      gradient, operator, x, num_steps=2, target=np.float32(1e-3)
    )[0],
    before,
  )
  abstract = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after)
  assert abstract == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), before)


def test_refuses_no_steps():
  with pytest.raises(ValueError, match="num_steps is 0"):
    curvature.newton(None, None, None, num_steps=0)
