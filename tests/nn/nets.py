"""Small nets whose dense maps have sides that no other array has."""

from typing import Any

import jax
from flax import linen as nn

LAYERS, WIDTH, HIDDEN, CLASSES = 3, 7, 11, 5


class Block(nn.Module):
  """A residual block of two dense maps."""

  dtype: Any = None
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self, x, _=None):
    dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    hidden = nn.tanh(nn.Dense(HIDDEN, name="up", **dtypes)(x))
    return x + nn.Dense(WIDTH, name="down", **dtypes)(hidden), None


class Stack(nn.Module):
  """Blocks scanned over stacked layers, or one after the other, and a head."""

  scan: bool = True
  remat: bool = False
  dtype: Any = None
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    block = nn.remat(Block, prevent_cse=False) if self.remat else Block
    if self.scan:
      block = nn.scan(
        block,
        variable_axes={"params": 0, "lora": 0},
        split_rngs={"params": True},
        length=LAYERS,
      )
      x, _ = block(name="layers", **dtypes)(x, None)
    else:
      for index in range(LAYERS):
        x, _ = block(name=f"layers_{index}", **dtypes)(x)
    return nn.Dense(CLASSES, name="head", use_bias=False, **dtypes)(x)
