"""Rows in batches on several devices: order, fill-up, one program."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from junlearn.audit import rows

ROWS = {
  "a": np.arange(11, dtype=np.float32),
  "b": np.arange(22, dtype=np.float32).reshape(11, 2),
}


@pytest.mark.parametrize("batch_size", [1, 4, 6, 11, 512])
def test_all_rows_come_back_in_order(batch_size):
  traced = []

  @jax.jit
  def function(params, batch):
    traced.append(batch["a"].shape)
    return {"sum": params * batch["a"] + batch["b"].sum(1), "same": batch["b"]}

  result = rows.apply(function, np.float32(3), ROWS, batch_size=batch_size)
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

  result = rows.apply(function, params, ROWS, batch_size=8)
  np.testing.assert_array_equal(result, ROWS["a"] + 2)
  for given, batch in seen:
    assert given["divided"].sharding == divided
    assert given["alone"].sharding.is_fully_replicated
    assert len(given["alone"].sharding.device_set) == 4
    assert batch["a"].addressable_shards[0].data.shape == (2,)
