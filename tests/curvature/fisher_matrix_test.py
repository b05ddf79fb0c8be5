"""The diagonal Fisher information, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import curvature, tree
from tests.curvature.dense import (
  PROBLEMS,
  error,
  flat,
  matrix,
  setup,
  weighted,
)

KINDS = {"expected": "fisher", "observed": "empirical_fisher"}
MAPS = {"pmap": jax.pmap, "vmap": lambda f, **k: jax.jit(jax.vmap(f, **k))}
every_kind = pytest.mark.parametrize("labels", KINDS)


def diagonal(labels, problem, given):
  return np.diag(matrix(KINDS[labels], problem, given))


def check(labels, problem, dtype, tolerance):
  model, params, examples, _ = setup(problem, dtype)
  for given, block_size in ((examples, None), (weighted(examples), 5)):
    found = jax.jit(
      lambda p, e, size=block_size: curvature.diagonal_fisher(
        model, p, e, labels=labels, block_size=size
      )
    )(params, given)
    assert error(found, diagonal(labels, problem, given)) <= tolerance
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, params)
    assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(dtype)}


@every_kind
@pytest.mark.parametrize("problem", PROBLEMS)
def test_is_the_diagonal_of_the_dense_matrix(labels, problem):
  check(labels, problem, np.float32, 1e-5)


@every_kind
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.usefixtures("x64")
def test_is_the_diagonal_in_double_precision(labels, problem):
  check(labels, problem, np.float64, 1e-10)


@every_kind
@pytest.mark.parametrize("backend", MAPS)
def test_shards_of_unequal_weight_equal_the_whole(labels, backend):
  model, params, examples, _ = setup("mlp")
  given = weighted(examples)
  shards = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), given)
  mapped = MAPS[backend](
    lambda shard, params: curvature.diagonal_fisher(
      model, params, shard, labels=labels, axis_name="shards"
    ),
    in_axes=(0, None),
    axis_name="shards",
  )(shards, params)
  expected = diagonal(labels, "mlp", given)
  for device in range(4):
    assert error(tree.take(mapped, device), expected) <= 1e-5


def test_maps_over_params():
  model, params, examples, _ = setup("mlp")
  other = setup("mlp", seed=2)[1]

  def diagonal(params):
    return curvature.diagonal_fisher(model, params, examples)

  mapped = jax.jit(jax.vmap(diagonal))(tree.stack([params, other]))
  for member, p in enumerate((params, other)):
    assert error(tree.take(mapped, member), flat(jax.jit(diagonal)(p))) <= 1e-5


@every_kind
def test_blocks_are_a_matter_of_speed_by_platform(labels, monkeypatch):
  """An accelerator's blocks give what single examples give."""
  model, params, examples, _ = setup("cnn")
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  found = jax.jit(
    lambda p: curvature.diagonal_fisher(model, p, examples, labels=labels)
  )(params)
  expected = diagonal(labels, "cnn", examples)
  assert error(found, expected) <= 1e-5


def test_refuses_unknown_labels():
  model, params, examples, _ = setup("mlp")
  with pytest.raises(ValueError, match="labels is 'true'"):
    curvature.diagonal_fisher(model, params, examples, labels="true")
