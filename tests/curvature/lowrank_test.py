"""The Woodbury inverse against the dense one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import curvature, tree
from junlearn.loss import cross_entropy
from tests.curvature.dense import EXAMPLES, error, flat, matrix, setup, weighted


def solve(problem, given=None, *, damping):
  dtype = np.float32 if given is None else given["input"].dtype.type
  model, params, examples, v = setup(problem, dtype)
  return jax.jit(
    lambda given: curvature.woodfisher(
      cross_entropy(model), params, given, v, damping=damping
    )
  )(given or examples)


def check(problem, dtype, damping, tolerance):
  _, _, examples, v = setup(problem, dtype)
  for given in (examples, weighted(examples)):
    x, info = solve(problem, given, damping=damping)
    a = matrix("empirical_fisher", problem, given, damping=damping)
    assert error(x, np.linalg.solve(a, flat(v))) <= tolerance
    assert info.converged
    assert not info.indefinite
    assert {leaf.dtype for leaf in jax.tree.leaves(x)} == {np.dtype(dtype)}


@pytest.mark.parametrize("problem", ["mlp", "cnn"])
@pytest.mark.parametrize("damping", [1.0, 1e-2])
def test_equals_the_dense_inverse(problem, damping):
  check(problem, np.float32, damping, 1e-5)


@pytest.mark.parametrize("problem", ["mlp", "cnn"])
@pytest.mark.usefixtures("x64")
def test_equals_the_dense_inverse_in_double_precision(problem):
  check(problem, np.float64, 1e-3, 1e-10)


def test_residual_is_the_true_one():
  """At a damping below what single precision resolves."""
  _, _, examples, v = setup("mlp")
  x, info = solve("mlp", damping=1e-7)
  a = matrix("empirical_fisher", "mlp", examples, damping=1e-7)
  residual = np.linalg.norm(flat(v) - a @ flat(x))
  assert info.converged == (residual <= 1e-4 * np.linalg.norm(flat(v)))
  np.testing.assert_allclose(info.residual, residual, rtol=0.5, atol=1e-5)


def test_is_the_recursion_over_rows():
  """WoodFisher's own form: one Sherman-Morrison update an example."""
  model, params, examples, v = setup("mlp")
  loss = cross_entropy(model)
  rows = jax.tree.map(lambda leaf: leaf[:, None], examples)
  gradients = jax.jit(
    jax.vmap(lambda row: curvature.gradient(loss, params, row))
  )(rows)
  inverse = np.eye(flat(v).size)
  for row in range(EXAMPLES):
    g = flat(tree.take(gradients, row))
    image = inverse @ g
    inverse -= np.outer(image, image) / (EXAMPLES + g @ image)
  x = solve("mlp", damping=1.0)[0]
  assert error(x, inverse @ flat(v)) <= 1e-5


def test_blocks_are_a_matter_of_speed_by_platform(monkeypatch):
  one_by_one, _ = solve("cnn", damping=0.1)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  blocks, _ = solve("cnn", damping=0.1)
  assert error(blocks, flat(one_by_one)) <= 1e-5


def test_without_weight_the_damping_is_left():
  _, _, examples, v = setup("mlp")
  absent = {**examples, "weight": jnp.zeros(EXAMPLES)}
  x, _ = solve("mlp", absent, damping=2.0)
  assert error(x, flat(v) / 2) <= 1e-6
