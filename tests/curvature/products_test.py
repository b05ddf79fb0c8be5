"""Laws of all operators, against dense matrices, on one device and on four."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import curvature, tree
from junlearn.loss import cross_entropy
from tests.curvature.dense import (
  EXAMPLES,
  PROBLEMS,
  error,
  flat,
  matrix,
  setup,
  weighted,
)

OPERATORS = {
  "hessian": lambda model, *args, **options: curvature.hessian(
    cross_entropy(model), *args, **options
  ),
  "gauss_newton": curvature.gauss_newton,
  "fisher": curvature.fisher,
  "empirical_fisher": lambda model, *args, **options: (
    curvature.empirical_fisher(cross_entropy(model), *args, **options)
  ),
}
MAPS = {"pmap": jax.pmap, "vmap": lambda f, **k: jax.jit(jax.vmap(f, **k))}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def check(name, problem, dtype, tolerance):
  model, params, examples, v = setup(problem, dtype)
  for given, batch_size in ((examples, None), (weighted(examples), 5)):
    product = jax.jit(
      lambda p, e, v, size=batch_size: OPERATORS[name](
        model, p, e, damping=0.3, batch_size=size
      )(v)
    )(params, given, v)
    expected = matrix(name, problem, given, damping=0.3) @ flat(v)
    assert error(product, expected) <= tolerance
    assert jax.tree.map(jnp.shape, product) == jax.tree.map(jnp.shape, v)
    assert {x.dtype for x in jax.tree.leaves(product)} == {np.dtype(dtype)}


@every_operator
@pytest.mark.parametrize("problem", PROBLEMS)
def test_equals_the_dense_matrix(name, problem):
  check(name, problem, np.float32, 1e-5)


@every_operator
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.usefixtures("x64")
def test_equals_the_dense_matrix_in_double_precision(name, problem):
  check(name, problem, np.float64, 1e-10)


@every_operator
@pytest.mark.parametrize("backend", MAPS)
def test_shards_of_unequal_weight_equal_the_whole(name, backend):
  model, params, examples, v = setup("cnn")
  given = weighted(examples)
  # Nearly nothing is left of the last shard.
  given["weight"] = given["weight"].at[-3:].set(jnp.array([0, 0.5, 0]))
  shards = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), given)
  mapped = MAPS[backend](
    lambda shard, params, v: OPERATORS[name](
      model, params, shard, damping=0.1, batch_size=2, axis_name="shards"
    )(v),
    in_axes=(0, None, None),
    axis_name="shards",
  )(shards, params, v)
  expected = matrix(name, "cnn", given, damping=0.1) @ flat(v)
  for device in range(4):
    assert error(tree.take(mapped, device), expected) <= 1e-5


def test_shards_may_lie_along_two_axes():
  model, params, examples, v = setup("mlp")
  given = weighted(examples)
  shards = jax.tree.map(lambda x: x.reshape(2, 2, 3, *x.shape[1:]), given)

  def shard(shard):
    axes = ("devices", "members")
    return curvature.fisher(model, params, shard, axis_name=axes)(v)

  inner = jax.vmap(shard, axis_name="members")
  mapped = jax.pmap(inner, axis_name="devices")(shards)
  expected = matrix("fisher", "mlp", given) @ flat(v)
  for leaf in jax.tree.leaves(mapped):
    assert leaf.shape[:2] == (2, 2)
  assert error(tree.take(tree.take(mapped, 1), 0), expected) <= 1e-5


@every_operator
def test_maps_over_vectors_and_params(name):
  model, params, examples, v = setup("mlp")
  _, other, _, w = setup("mlp", seed=2)

  @jax.jit
  def product(params, v):
    return OPERATORS[name](model, params, examples, batch_size=5)(v)

  mapped = jax.jit(jax.vmap(product))(
    tree.stack([params, other]), tree.stack([v, w])
  )
  for member, (p, u) in enumerate([(params, v), (other, w)]):
    assert error(tree.take(mapped, member), flat(product(p, u))) <= 1e-5


@every_operator
def test_weights_are_repetitions(name):
  model, params, examples, v = setup("mlp")
  count = np.arange(EXAMPLES) % 3
  repeated = tree.take(examples, np.repeat(np.arange(EXAMPLES), count))
  product = jax.jit(lambda given: OPERATORS[name](model, params, given)(v))
  by_weight = product({**examples, "weight": jnp.asarray(count)})
  by_rows = product(repeated)
  assert error(by_weight, flat(by_rows)) <= 1e-5


@every_operator
def test_without_weight_the_mean_is_zero_and_damping_stays(name):
  model, params, examples, v = setup("mlp")
  absent = {**examples, "weight": jnp.zeros(EXAMPLES)}
  product = jax.jit(OPERATORS[name](model, params, absent, damping=2.0))
  assert error(product(v), 2 * flat(v)) <= 1e-7


@every_operator
@pytest.mark.usefixtures("x64")
def test_damping_of_another_precision_changes_no_dtype(name):
  model, params, examples, v = setup("mlp")
  product = OPERATORS[name](model, params, examples, damping=jnp.float64(0.1))
  shapes = jax.eval_shape(product, v)
  assert {x.dtype for x in jax.tree.leaves(shapes)} == {np.dtype("float32")}


@pytest.mark.parametrize("batch_size", [0, -1])
def test_refuses_batches_without_rows(batch_size):
  model, params, examples, v = setup("mlp")
  product = curvature.fisher(model, params, examples, batch_size=batch_size)
  with pytest.raises(
    ValueError, match=re.escape(f"batch_size is {batch_size}")
  ):
    product(v)


def test_refuses_no_examples():
  model, params, examples, v = setup("mlp")
  product = curvature.fisher(model, params, tree.take(examples, slice(0)))
  with pytest.raises(ValueError, match="examples is empty"):
    product(v)
