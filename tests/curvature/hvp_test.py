"""What only the Hessian, the Gauss-Newton matrix and the gradient obey.

The laws that all operators share are in `products_test`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from junlearn import curvature
from junlearn.loss import cross_entropy
from tests.curvature.dense import EXAMPLES, error, flat, setup, weighted


@pytest.mark.usefixtures("x64")
def test_gauss_newton_is_the_hessian_of_a_linear_model():
  model, params, examples, v = setup("linear", np.float64)
  hessian = curvature.hessian(cross_entropy(model), params, examples)
  gauss_newton = curvature.gauss_newton(model, params, examples)
  assert error(gauss_newton(v), flat(hessian(v))) <= 1e-12


@pytest.mark.usefixtures("x64")
def test_gauss_newton_is_not_the_hessian_of_a_net():
  model, params, examples, v = setup("mlp", np.float64)
  hessian = curvature.hessian(cross_entropy(model), params, examples)
  gauss_newton = curvature.gauss_newton(model, params, examples)
  assert error(gauss_newton(v), flat(hessian(v))) > 0.01


def test_gauss_newton_of_any_output_loss():
  """Squared error has `B = 2 I`."""
  model, params, examples, v = setup("mlp")
  product = curvature.gauss_newton(
    model,
    params,
    examples,
    output_loss=lambda z, batch: jnp.sum(
      jnp.square(z - batch["input"][:, :3]), axis=-1
    ),
  )(v)
  start, unravel = ravel_pytree(params)
  jacobian = jax.jacobian(
    lambda x: model.apply(unravel(x), examples["input"])[0]
  )(start)
  jacobian = np.asarray(jacobian, np.float64).reshape(-1, start.size)
  expected = 2 * jacobian.T @ jacobian @ flat(v) / EXAMPLES
  assert error(product, expected) <= 1e-5


@pytest.mark.parametrize("batch_size", [None, 5])
def test_gradient_is_of_the_mean(batch_size):
  model, params, examples, _ = setup("mlp")
  given, loss = weighted(examples), cross_entropy(model)

  def mean(params):
    return jnp.average(loss(params, given)[0], weights=given["weight"])

  found = curvature.gradient(loss, params, given, batch_size=batch_size)
  assert error(found, flat(jax.grad(mean)(params))) <= 1e-5
