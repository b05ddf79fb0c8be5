"""Operators against dense matrices, on one device and on four."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from junlearn import curvature, nn, tree
from junlearn.loss import cross_entropy
from junlearn.model import from_linen
from tests import problems

OPERATORS = {
  "hessian": lambda model, *args, **options: curvature.hessian(
    cross_entropy(model), *args, **options
  ),
  "gauss_newton": curvature.gauss_newton,
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


@functools.cache
def convolutional():
  """A convolutional net of 115 params on the 4x4 digits."""
  model = from_linen(nn.CNN(4, features=(3,), hidden=5))
  problem = problems.digits()
  examples = dict(problem.examples)
  examples["label"] = examples["label"] % 4
  return problem._replace(model=model, examples=examples, num_classes=4)


PROBLEMS = {
  "mlp": lambda: problems.blobs(hidden=5),
  "cnn": convolutional,
  "linear": problems.logistic,
}


def setup(problem, dtype=np.float32, seed=0):
  """Params away from zero, examples, and a vector, all of one dtype."""
  rng = np.random.default_rng(seed)
  abstract = jax.eval_shape(problem.init)
  params, v = (
    jax.tree.map(
      lambda x: jnp.asarray(rng.normal(size=x.shape), dtype), abstract
    )
    for _ in range(2)
  )
  inputs = jnp.asarray(problem.examples["input"], dtype)
  return params, {**problem.examples, "input": inputs}, v


def dense(name, model, params, examples, *, damping=0.0):
  """The matrix of an operator, from its definition."""
  flat, unravel = ravel_pytree(params)
  n = tree.size(examples)
  weight = np.asarray(examples.get("weight", np.ones(n)), np.float64)

  def logits(flat):
    return model.apply(unravel(flat), examples["input"])[0]

  def losses(flat):
    return cross_entropy(model)(unravel(flat), examples)[0]

  def each(function):
    return np.asarray(function(flat), np.float64)

  if name == "hessian":
    each_matrix = each(jax.hessian(losses))
  elif name == "empirical_fisher":
    g = each(jax.jacobian(losses))
    each_matrix = np.einsum("ni,nj->nij", g, g)
  else:
    jacobian, p = (
      each(jax.jacobian(logits)),
      each(lambda f: jax.nn.softmax(logits(f))),
    )
    outer = np.einsum("nc,nd->ncd", p, p)
    curve = np.einsum("nc,cd->ncd", p, np.eye(p.shape[1])) - outer
    each_matrix = np.einsum("nci,ncd,ndj->nij", jacobian, curve, jacobian)
  mean = np.einsum("n,nij->ij", weight, each_matrix) / max(weight.sum(), 1)
  return mean + damping * np.eye(flat.size)


def error(actual, desired):
  actual = np.asarray(ravel_pytree(actual)[0], np.float64)
  return np.linalg.norm(actual - desired) / np.linalg.norm(desired)


def weighted(examples, seed=1):
  rng = np.random.default_rng(seed)
  n = tree.size(examples)
  weight = rng.uniform(0, 3, n) * (rng.uniform(size=n) < 0.8)
  return {**examples, "weight": jnp.asarray(weight, examples["input"].dtype)}


def check(name, problem_name, dtype, tolerance):
  problem = PROBLEMS[problem_name]()
  params, examples, v = setup(problem, dtype)
  for given in (examples, weighted(examples)):
    expected = dense(name, problem.model, params, given, damping=0.3)
    expected = expected @ np.asarray(ravel_pytree(v)[0], np.float64)
    for batch_size in (None, 7):
      product = jax.jit(
        lambda p, e, v, size=batch_size: OPERATORS[name](
          problem.model, p, e, damping=0.3, batch_size=size
        )(v)
      )(params, given, v)
      assert error(product, expected) <= tolerance
      assert jax.tree.map(jnp.shape, product) == jax.tree.map(jnp.shape, v)
      assert {x.dtype for x in jax.tree.leaves(product)} == {np.dtype(dtype)}


@every_operator
@pytest.mark.parametrize("problem_name", PROBLEMS)
def test_equals_the_dense_matrix(name, problem_name):
  check(name, problem_name, np.float32, 1e-5)


@every_operator
@pytest.mark.parametrize("problem_name", PROBLEMS)
@pytest.mark.usefixtures("x64")
def test_equals_the_dense_matrix_in_double_precision(name, problem_name):
  check(name, problem_name, np.float64, 1e-10)


@every_operator
@pytest.mark.parametrize("backend", ["pmap", "vmap"])
def test_shards_of_unequal_weight_equal_the_whole(name, backend):
  problem = convolutional()
  params, examples, v = setup(problem)
  given = weighted(examples)
  # All weight but one example's away from the last shard.
  given["weight"] = given["weight"].at[-5:].set(0).at[-1].set(0.5)
  shards = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), given)
  mapping = getattr(jax, backend)
  sharded = mapping(
    lambda shard, v: OPERATORS[name](
      problem.model, params, shard, batch_size=4, axis_name="shards"
    )(v),
    in_axes=(0, None),
    axis_name="shards",
  )(shards, v)
  expected = dense(name, problem.model, params, given)
  expected = expected @ np.asarray(ravel_pytree(v)[0], np.float64)
  for device in range(4):
    assert error(tree.take(sharded, device), expected) <= 1e-5


@every_operator
def test_maps_over_vectors_and_params(name):
  problem = problems.blobs(hidden=5)
  params, examples, v = setup(problem)
  other, _, w = setup(problem, seed=2)

  def product(params, v):
    return OPERATORS[name](problem.model, params, examples, batch_size=16)(v)

  mapped = jax.vmap(product)(tree.stack([params, other]), tree.stack([v, w]))
  for member, (p, u) in enumerate([(params, v), (other, w)]):
    single = np.asarray(ravel_pytree(product(p, u))[0], np.float64)
    assert error(tree.take(mapped, member), single) <= 1e-5


@every_operator
def test_weights_are_repetitions(name):
  problem = problems.blobs(hidden=5)
  params, examples, v = setup(problem)
  count = np.arange(tree.size(examples)) % 3
  repeated = tree.take(examples, np.repeat(np.arange(len(count)), count))
  given = {**examples, "weight": jnp.asarray(count)}
  by_weight, by_rows = (
    OPERATORS[name](problem.model, params, e)(v) for e in (given, repeated)
  )
  assert error(by_weight, np.asarray(ravel_pytree(by_rows)[0])) <= 1e-5


def test_without_weight_the_mean_is_zero_and_damping_stays():
  problem = problems.blobs(hidden=5)
  params, examples, v = setup(problem)
  absent = {**examples, "weight": jnp.zeros(tree.size(examples))}
  product = curvature.gauss_newton(problem.model, params, absent, damping=2.0)(
    v
  )
  assert error(product, 2 * np.asarray(ravel_pytree(v)[0])) <= 1e-7


@pytest.mark.usefixtures("x64")
def test_gauss_newton_is_the_hessian_of_a_linear_model():
  problem = problems.logistic()
  params, examples, v = setup(problem, np.float64)
  first, second = (
    ravel_pytree(OPERATORS[name](problem.model, params, examples)(v))[0]
    for name in ("hessian", "gauss_newton")
  )
  np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-14)


def test_gauss_newton_of_any_output_loss():
  """Squared error has B = 2 I."""
  problem = problems.blobs(hidden=5)
  params, examples, v = setup(problem)
  product = curvature.gauss_newton(
    problem.model,
    params,
    examples,
    output_loss=lambda z, batch: jnp.sum(
      jnp.square(z - batch["input"][:, :3]), -1
    ),
  )(v)
  flat, unravel = ravel_pytree(params)
  jacobian = np.asarray(
    jax.jacobian(
      lambda f: problem.model.apply(unravel(f), examples["input"])[0]
    )(flat),
    np.float64,
  ).reshape(-1, flat.size)
  expected = 2 * jacobian.T @ jacobian / tree.size(examples)
  assert error(product, expected @ np.asarray(ravel_pytree(v)[0])) <= 1e-5


def test_gradient_is_of_the_mean():
  problem = problems.blobs(hidden=5)
  params, examples, _ = setup(problem)
  given = weighted(examples)
  loss = cross_entropy(problem.model)

  def mean(params):
    losses = loss(params, given)[0]
    return jnp.average(losses, weights=given["weight"])

  expected = np.asarray(ravel_pytree(jax.grad(mean)(params))[0])
  for size in (None, 9):
    found = curvature.gradient(loss, params, given, batch_size=size)
    assert error(found, expected) <= 1e-5


@pytest.mark.parametrize("batch_size", [0, -1])
def test_refuses_batches_without_rows(batch_size):
  problem = problems.blobs(hidden=5)
  params, examples, v = setup(problem)
  with pytest.raises(ValueError, match=f"batch_size is {batch_size}"):
    OPERATORS["hessian"](
      problem.model, params, examples, batch_size=batch_size
    )(v)


def test_refuses_no_examples():
  problem = problems.blobs(hidden=5)
  params, examples, v = setup(problem)
  with pytest.raises(ValueError, match="examples is empty"):
    OPERATORS["hessian"](problem.model, params, tree.take(examples, slice(0)))(
      v
    )
