"""Batched prediction equals one application of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from junlearn.audit.predict import predict
from junlearn.model import from_function, from_linen

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(11, 3)).astype(np.float32)
WEIGHTS = RNG.normal(size=(4, 3, 2)).astype(np.float32)
LINEAR = from_function(lambda w, x: x @ w)


class Net(linen.Module):
  """Differs between training and evaluation."""

  @linen.compact
  def __call__(self, x, train: bool = False):
    x = linen.BatchNorm(use_running_average=not train)(x)
    x = linen.Dropout(0.5, deterministic=not train)(x)
    return linen.Dense(2)(x)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 11, 12, 512])
def test_any_batch_size_gives_all_rows_in_order(batch_size):
  outputs = predict(LINEAR, WEIGHTS[0], INPUTS, batch_size=batch_size)
  assert isinstance(outputs, np.ndarray)
  np.testing.assert_allclose(outputs, INPUTS @ WEIGHTS[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [4, 512])
def test_stacked_params_have_their_members_first(batch_size):
  outputs = predict(
    LINEAR, WEIGHTS, INPUTS, batch_size=batch_size, stacked=True
  )
  np.testing.assert_allclose(
    outputs, np.einsum("nd,mdc->mnc", INPUTS, WEIGHTS), rtol=1e-5, atol=1e-6
  )


def test_prediction_is_evaluation():
  model = from_linen(Net())
  params = jax.jit(model.init)(jax.random.key(0), INPUTS)
  _, params = model.apply(params, 3 * INPUTS + 1, jax.random.key(1))
  np.testing.assert_allclose(
    predict(model, params, INPUTS, batch_size=4),
    model.apply(params, INPUTS)[0],
    rtol=1e-5,
    atol=1e-6,
  )


def test_inputs_may_be_a_tree_and_outputs_have_any_rank():
  model = from_function(lambda w, x: w * x["a"][:, None] + x["b"])
  inputs = {"a": jnp.arange(5.0), "b": jnp.ones((5, 2))}
  outputs = predict(model, jnp.float32(3), inputs, batch_size=2)
  np.testing.assert_array_equal(outputs, 3 * np.arange(5.0)[:, None] + [1, 1])
  scalar = from_function(lambda w, x: x @ w)
  assert predict(scalar, WEIGHTS[0, :, 0], INPUTS, batch_size=4).shape == (11,)


def test_one_program_serves_all_batches_and_calls():
  traces = []

  def apply(w, x):
    traces.append(1)
    return x @ w

  model = from_function(apply)
  predict(model, WEIGHTS[0], INPUTS, batch_size=4)
  predict(model, WEIGHTS[1], INPUTS[:9], batch_size=4)
  assert len(traces) == 1


def test_no_inputs_are_refused():
  with pytest.raises(ValueError, match="inputs is empty"):
    predict(LINEAR, WEIGHTS[0], INPUTS[:0])
