"""The matrix products of a step on 28x28x1, batch 128, by themselves.

No step can be faster than its products together; training needs no input
gradient of the first layer.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch

from experiments.bench import timing
from experiments.bench.eager import threads

_CALLS = 20
# Rows, inputs and outputs.
_LAYERS = {
  "first convolution": (128 * 14 * 14, 9, 16),
  "second convolution": (128 * 7 * 7, 144, 32),
  "hidden layer": (128, 1568, 64),
}
# Both factors, and the axis of each that is summed over.
_PRODUCTS = {
  "outputs": ("xw", (1, 0)),
  "kernel gradient": ("xg", (0, 0)),
  "input gradient": ("gw", (1, 1)),
}


def compare(repeats: int) -> Iterator[timing.Comparison]:
  """Three layers, and three products of each."""
  generator = np.random.default_rng(0)
  for layer, (rows, inputs, outputs) in _LAYERS.items():
    shapes = {"x": (rows, inputs), "w": (inputs, outputs), "g": (rows, outputs)}
    values = {
      name: generator.standard_normal(shape, np.float32)
      for name, shape in shapes.items()
    }
    for name, ((left, right), axes) in _PRODUCTS.items():
      pair = values[left], values[right]
      yield from threads.compare(
        f"{_CALLS} products, {layer}, {name}",
        {"dot_general": _xla(*pair, axes)},
        {"matmul": _torch(*pair, axes)},
        repeats=repeats,
        threshold=1.0,
      )


def _xla(left, right, axes):
  left, right = jnp.asarray(left), jnp.asarray(right)
  contracted = tuple((axis,) for axis in axes)
  product = jax.jit(
    lambda a, b: jax.lax.dot_general(a, b, (contracted, ((),) * 2))
  )

  def work():
    for _ in range(_CALLS):
      result = product(left, right)
    return np.asarray(result)

  return work


def _torch(left, right, axes):
  left, right = torch.from_numpy(left), torch.from_numpy(right)
  left = left if axes[0] == 1 else left.T
  right = right if axes[1] == 0 else right.T

  def work():
    for _ in range(_CALLS):
      result = left @ right
    return result.numpy()

  return work
