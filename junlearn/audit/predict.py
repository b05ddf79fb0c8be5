"""Outputs of a model, or of a population of models, on many inputs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree
from junlearn.model import Model


@functools.lru_cache(maxsize=64)
def _forward(model: Model, stacked: bool):
  def forward(params, inputs):
    return model.apply(params, inputs)[0]

  return jax.jit(jax.vmap(forward, in_axes=(0, None)) if stacked else forward)


def predict(
  model: Model,
  params: Any,
  inputs: Any,
  *,
  batch_size: int = 512,
  stacked: bool = False,
) -> np.ndarray:
  """Outputs in evaluation mode, computed batch by batch.

  Args:
    model: the model.
    params: its params; with `stacked`, those of all members on a new axis 0.
    inputs: pytree of arrays `[n, ...]`.
    batch_size: inputs at a time; the last batch is filled up, so that one
      compiled program serves all.
    stacked: whether params are those of a population.

  Returns:
    NumPy array `[n, ...]`, or `[members, n, ...]` with `stacked`.

  Raises:
    ValueError: if there are no inputs.
  """
  n = tree.size(inputs)
  if n == 0:
    raise ValueError("predict: inputs is empty; at least one is needed.")
  batch_size = min(batch_size, n)
  forward = _forward(model, stacked)
  outputs = []
  for start in range(0, n, batch_size):
    rows = np.minimum(np.arange(start, start + batch_size), n - 1)
    outputs.append(forward(params, tree.take(inputs, rows)))
  axis = 1 if stacked else 0
  joined = jnp.concatenate(outputs, axis=axis)
  return np.asarray(jax.lax.slice_in_dim(joined, 0, n, axis=axis))
