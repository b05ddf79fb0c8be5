"""Outputs in batches: one application of the model, order, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from junlearn.audit.outputs import over_rows, predict
from junlearn.model import from_function, from_linen

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(11, 3)).astype(np.float32)
WEIGHTS = RNG.normal(size=(4, 3, 2)).astype(np.float32)
LINEAR = from_function(lambda w, x: x @ w)
ROWS = {
  "a": np.arange(11, dtype=np.float32),
  "b": np.arange(22, dtype=np.float32).reshape(11, 2),
}


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


@pytest.mark.parametrize("batch_size", [1, 4, 6, 11, 512])
def test_all_rows_come_back_in_order(batch_size):
  traced = []

  @jax.jit
  def function(params, batch):
    traced.append(batch["a"].shape)
    return {"sum": params * batch["a"] + batch["b"].sum(1), "same": batch["b"]}

  result = over_rows(function, np.float32(3), ROWS, batch_size=batch_size)
  assert isinstance(result["sum"], np.ndarray)
  np.testing.assert_array_equal(result["sum"], 3 * ROWS["a"] + ROWS["b"].sum(1))
  np.testing.assert_array_equal(result["same"], ROWS["b"])
  assert traced == [(min(-(-batch_size // 4) * 4, 12),)]


def test_params_on_several_devices_stay_where_they_are():
  mesh = Mesh(jax.local_devices(), ("columns",))
  divided = NamedSharding(mesh, PartitionSpec("columns"))
  params = {
    "divided": jax.device_put(np.ones(8, np.float32), divided),
    "alone": jax.device_put(np.float32(2), jax.local_devices()[1]),
  }
  seen = []

  def function(params, batch):
    seen.append((params, batch))
    return batch["a"] + params["alone"]

  result = over_rows(function, params, ROWS, batch_size=8)
  np.testing.assert_array_equal(result, ROWS["a"] + 2)
  for given, batch in seen:
    assert given["divided"].sharding == divided
    assert given["alone"].sharding.is_fully_replicated
    assert len(given["alone"].sharding.device_set) == 4
    assert batch["a"].addressable_shards[0].data.shape == (2,)
