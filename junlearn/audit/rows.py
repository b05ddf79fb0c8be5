"""A compiled function over many rows, batch by batch, on all local devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from junlearn import tree


def apply(
  function: Callable[[Any, Any], Any],
  params: Any,
  rows: Any,
  *,
  batch_size: int,
) -> Any:
  """The results of `function(params, batch)` for all rows.

  Args:
    function: jitted; treats every row of a batch by itself.
    params: those that lie on several devices stay as they are, others are
      copied to each device.
    rows: pytree of arrays `[n, ...]`, n >= 1. Those of a batch are divided
      over the local devices.
    batch_size: rows at a time; rounded up to a multiple of the devices. The
      last batch is filled up, so that one compiled program serves all.

  Returns:
    Pytree of NumPy arrays `[n, ...]`.
  """
  devices = jax.local_devices()
  mesh = Mesh(devices, ("rows",))
  rowwise = NamedSharding(mesh, PartitionSpec("rows"))
  params = jax.tree.map(functools.partial(_spread, mesh), params)
  rows = jax.tree.map(np.asarray, rows)
  n = tree.size(rows)
  batch_size = -(-min(batch_size, n) // len(devices)) * len(devices)
  results = []
  for start in range(0, n, batch_size):
    index = np.minimum(np.arange(start, start + batch_size), n - 1)
    batch = jax.device_put(tree.take(rows, index), rowwise)
    results.append(function(params, batch))
  return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *results)


def _spread(mesh, leaf):
  """The leaf on every device of the mesh, unless it is on several already."""
  sharding = getattr(leaf, "sharding", None)
  if sharding is not None and len(sharding.device_set) > 1:
    return leaf
  return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))
