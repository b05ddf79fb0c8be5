"""What a model computes of many rows, batch by batch, on all local devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from junlearn import tree
from junlearn.model import Model
from junlearn.typing import Batch, Inputs, Params


def predict(
  model: Model,
  params: Params,
  inputs: Inputs,
  *,
  batch_size: int = 512,
  stacked: bool = False,
) -> np.ndarray:
  """Outputs in evaluation mode, of a model or of a population of models.

  Args:
    model: the model.
    params: its params; with `stacked`, those of all members on a new axis 0.
    inputs: pytree of arrays `[n, ...]`.
    batch_size: inputs at a time.
    stacked: whether params are those of a population.

  Returns:
    NumPy array `[n, ...]`, or `[members, n, ...]` with `stacked`.

  Raises:
    ValueError: if there are no inputs.
  """
  if tree.size(inputs) == 0:
    raise ValueError("inputs is empty; at least one is needed.")
  return over_rows(
    _forward(model, stacked),
    params,
    inputs,
    batch_size=batch_size,
    axis=1 if stacked else 0,
  )


def over_rows(
  function: Callable[[Params, Batch], Any],
  params: Params,
  rows: Batch,
  *,
  batch_size: int,
  axis: int = 0,
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
    axis: of the rows in the results.

  Returns:
    Pytree of NumPy arrays with n rows on that axis.
  """
  n = tree.size(rows)
  devices = jax.local_devices()
  mesh = Mesh(devices, ("rows",))
  rowwise = NamedSharding(mesh, PartitionSpec("rows"))
  params = jax.tree.map(functools.partial(_spread, mesh), params)
  batch_size = -(-min(batch_size, n) // len(devices)) * len(devices)
  results = []
  for start in range(0, n, batch_size):
    index = np.minimum(np.arange(start, start + batch_size), n - 1)
    batch = jax.device_put(tree.take(rows, index), rowwise)
    results.append(function(params, batch))

  def join(*leaves):
    return np.take(np.concatenate(leaves, axis), np.arange(n), axis)

  return jax.tree.map(join, *results)


@functools.lru_cache(maxsize=64)
def _forward(model: Model, stacked: bool):
  def forward(params, inputs):
    return model.apply(params, inputs)[0]

  return jax.jit(jax.vmap(forward, in_axes=(0, None)) if stacked else forward)


def _spread(mesh, leaf):
  """The leaf on every device of the mesh, unless it is on several already."""
  sharding = getattr(leaf, "sharding", None)
  if sharding is not None and len(sharding.device_set) > 1:
    return leaf
  return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))
