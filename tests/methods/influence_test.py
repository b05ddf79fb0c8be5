"""Influence unlearning against retraining to convergence."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from junlearn import curvature, objective, tree
from junlearn.data import select
from junlearn.loss import cross_entropy
from junlearn.methods import influence
from tests import problems

L2 = 0.02
KEY = jax.random.key(0)


def trained(problem, examples):
  """The minimum of the mean loss plus the penalty."""
  risk = objective.risk(cross_entropy(problem.model), l2=L2)
  flat, unravel = ravel_pytree(problem.init())
  gradient = jax.jit(
    lambda x: ravel_pytree(jax.grad(risk)(unravel(x), examples))[0]
  )
  found = scipy.optimize.root(
    lambda x: np.asarray(gradient(x)), flat, tol=1e-12
  )
  return unravel(jnp.asarray(found.x))


@functools.cache
def logistic():
  """300 examples of which 3 are forgotten; original and retrained params."""
  problem = problems.logistic(n=300)
  request = select.by_fraction(problem.examples, 0.01, seed=0)
  return (
    problem,
    request,
    trained(problem, problem.examples),
    trained(problem, request.retain),
  )


def distance(a, b):
  return float(optax.tree.norm(optax.tree.sub(a, b)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("batch_size", [None, 64])
def test_reaches_retraining_on_a_convex_problem(batch_size):
  problem, request, original, retrained = logistic()
  result = influence.transform(
    problem.model, damping=L2, batch_size=batch_size, tolerance=1e-8
  )(KEY, original, request)
  moved = distance(original, retrained)
  assert moved > 1e-3
  assert distance(result.params, retrained) <= 0.1 * moved
  assert result.info["solve"].converged
  np.testing.assert_allclose(
    result.info["step"], distance(result.params, original), rtol=1e-6
  )


@pytest.mark.usefixtures("x64")
def test_is_a_newton_step_from_an_optimum():
  problem, request, original, _ = logistic()
  result = influence.transform(problem.model, damping=L2, tolerance=1e-12)(
    KEY, original, request
  )
  loss = cross_entropy(problem.model)
  risk = objective.risk(loss, l2=L2)
  step, _ = curvature.conjugate_gradient(
    curvature.hessian(loss, original, request.retain, damping=L2),
    jax.grad(risk)(original, request.retain),
    tolerance=1e-12,
  )
  expected = optax.tree.sub(original, step)
  error = distance(result.params, expected)
  assert error <= 1e-7 * distance(original, expected)


@pytest.mark.usefixtures("x64")
def test_alpha_scales_the_step():
  problem, request, original, _ = logistic()
  steps = [
    optax.tree.sub(
      influence.transform(problem.model, alpha=alpha, damping=L2)(
        KEY, original, request
      ).params,
      original,
    )
    for alpha in (1.0, 0.2)
  ]
  assert distance(optax.tree.scale(0.2, steps[0]), steps[1]) < 1e-10


@pytest.mark.usefixtures("x64")
def test_weights_tell_the_parts_as_rows_do():
  problem, request, original, _ = logistic()
  forget = np.isin(problem.examples["id"], request.forget["id"])
  by_weight = select.by_weight(problem.examples, forget)
  transform = influence.transform(problem.model, damping=L2, tolerance=1e-10)
  a, b = (transform(KEY, original, r).params for r in (request, by_weight))
  assert distance(a, b) <= 1e-6 * distance(a, original)


@pytest.mark.usefixtures("x64")
def test_woodfisher_inverts_the_empirical_fisher_matrix():
  """With as many samples as there are, no sampling is left."""
  problem, request, original, _ = logistic()
  damping = 0.1
  result = influence.transform(
    problem.model, damping=damping, num_samples=10_000
  )(KEY, original, request)
  loss = cross_entropy(problem.model)
  gradients = [
    ravel_pytree(curvature.gradient(loss, original, part))[0]
    for part in (request.forget, request.retain)
  ]
  rows = jax.jit(
    jax.vmap(
      lambda example: ravel_pytree(
        jax.grad(
          lambda p: loss(p, jax.tree.map(lambda leaf: leaf[None], example))[0][
            0
          ]
        )(original)
      )[0]
    )
  )(request.retain)
  fisher = rows.T @ rows / len(rows) + damping * jnp.eye(rows.shape[1])
  v = 0.01 * (gradients[0] - gradients[1])
  flat = ravel_pytree(optax.tree.sub(result.params, original))[0]
  np.testing.assert_allclose(flat, np.linalg.solve(fisher, v), rtol=1e-8)


def test_woodfisher_draws_its_samples_by_the_key():
  problem = problems.blobs()
  transform = influence.transform(problem.model, num_samples=5)
  arguments = problem.init(), problem.request
  first, again, other = (
    tree.digest(transform(jax.random.key(seed), *arguments).params)
    for seed in (0, 0, 1)
  )
  assert first == again
  assert first != other


def test_reports_a_solve_that_was_cut_short():
  problem = problems.blobs()
  result = influence.transform(
    problem.model, damping=1e-4, tolerance=1e-6, max_steps=2
  )(KEY, problem.init(), problem.request)
  assert not result.info["solve"].converged
  assert result.info["solve"].steps == 2


@pytest.mark.parametrize("part", ["forget", "retain"])
def test_needs_both_parts(part):
  problem = problems.blobs()
  request = problem.request._replace(**{part: None})
  with pytest.raises(ValueError, match=re.escape(f"no {part} examples")):
    influence.transform(problem.model)(KEY, problem.init(), request)


@pytest.mark.parametrize(
  ("name", "value"), [("alpha", -1.0), ("damping", 0.0), ("num_samples", 0)]
)
def test_refuses_numbers_out_of_range(name, value):
  with pytest.raises(ValueError, match=re.escape(f"{name} is {value}")):
    influence.transform(problems.blobs().model, **{name: value})
