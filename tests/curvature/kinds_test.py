"""Curvatures by name are the package's functions."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import curvature
from junlearn.curvature.kinds import Curvature, operator
from junlearn.loss import of_outputs
from tests.curvature import dense

NAMES = ("hessian", "gauss_newton", "fisher", "empirical_fisher")


def squared(outputs, examples):
  """A loss with a curvature of its own."""
  target = jax.nn.one_hot(examples["label"], 3, dtype=outputs.dtype)
  return jnp.sum(jnp.square(outputs - target), 1)


def test_the_names():
  assert get_args(Curvature) == NAMES


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_its_matrix(name):
  model, params, examples, v = dense.setup("mlp", np.float64)
  examples = dense.weighted(examples)
  matvec = operator(name, model)(params, examples, damping=0.1, batch_size=5)
  kind = "fisher" if name == "gauss_newton" else name  # equal for softmax
  matrix = dense.matrix(kind, "mlp", examples, damping=0.1)
  assert dense.error(jax.jit(matvec)(v), matrix @ dense.flat(v)) < 1e-10


@pytest.mark.usefixtures("x64")
def test_all_but_fisher_are_of_the_loss():
  model, params, examples, v = dense.setup("mlp", np.float64)
  loss = of_outputs(model, squared)

  @jax.jit
  def products():
    direct = {
      "hessian": curvature.hessian(loss, params, examples),
      "gauss_newton": curvature.gauss_newton(
        model, params, examples, output_loss=squared
      ),
      "fisher": curvature.fisher(model, params, examples),
      "empirical_fisher": curvature.empirical_fisher(loss, params, examples),
    }
    named = {k: operator(k, model, squared)(params, examples) for k in NAMES}
    return [{k: matvec(v) for k, matvec in d.items()} for d in (direct, named)]

  direct, named = products()
  for name in NAMES:
    expected = dense.flat(direct[name])
    np.testing.assert_allclose(dense.flat(named[name]), expected, atol=1e-12)
    kind = "fisher" if name == "gauss_newton" else name
    plain = dense.matrix(kind, "mlp", examples) @ dense.flat(v)
    assert (np.abs(expected - plain).max() > 1e-2) == (name != "fisher")


@pytest.mark.parametrize("name", ["hesse", "", None])
def test_unknown_names(name):
  model = dense.setup("mlp")[0]
  with pytest.raises(ValueError, match="it must be 'hessian', 'gauss_"):
    operator(name, model)
