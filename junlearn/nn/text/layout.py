"""Which tensors of a published checkpoint make up which leaf of the params.

A published layer stores its weight as [out, in], where a flax one has its
kernel as [in, out]; and one leaf of stacked layers is as many tensors.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree
from junlearn.nn.text import shards, transformer

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Leaf:
  """A leaf of the params.

  Attributes:
    shape: of the leaf.
    tensors: that hold it: one a layer if it is stacked, else one.
    stacked: whether its first axis is that of the layers.
    transposed: whether a tensor's axes are in reverse.
  """

  shape: tuple[int, ...]
  tensors: tuple[str, ...]
  stacked: bool
  transposed: bool

  def stored(self, axes: tuple[Any, ...]) -> tuple[Any, ...]:
    """What belongs to the leaf's axes, for those of a tensor."""
    axes = axes[self.stacked :]
    return axes[::-1] if self.transposed else axes

  def read(
    self,
    tensors: Mapping[str, shards.Tensor],
    dtype: np.dtype,
    index: tuple[slice, ...],
  ) -> np.ndarray:
    """A part of the leaf, one slice an axis, read tensor by tensor."""
    ranges = [range(n)[s] for n, s in zip(self.shape, index, strict=True)]
    values = np.empty([len(each) for each in ranges], dtype)
    # Layers apart, and a leaf without them as the only one.
    rows = values if self.stacked else values[None]
    names = self.tensors[index[0]] if self.stacked else self.tensors
    for row, name in zip(rows, names, strict=True):
      self._orient(tensors[name].read(self.stored(index)), row)
    return values

  def sources(self, array: Any) -> list[shards.Source]:
    """The tensors to write for an array in the place of the leaf."""
    return [
      shards.Source(
        name,
        array.nbytes // len(self.tensors),
        functools.partial(self._tensor, array, layer),
      )
      for layer, name in enumerate(self.tensors)
    ]

  def _tensor(self, array, layer):
    value = np.asarray(array[layer] if self.stacked else array)
    tensor = np.empty(self.stored(self.shape), value.dtype)
    self._orient(value, tensor)
    return tensor

  def _orient(self, values, out):
    if not self.transposed:
      out[...] = values
      return
    # Some rows at a time is five times as fast as all at once.
    for start in range(0, len(values), 64):
      rows = slice(start, start + 64)
      out[:, rows] = values[rows].T


def leaves(config: transformer.Config) -> Any:
  """The tree of a decoder's params with a `Leaf` in each place."""
  shapes = jax.eval_shape(
    transformer.model(config).init,
    jax.random.key(0),
    jnp.zeros((1, 1), jnp.int32),
  )

  def leaf(name, array):
    first, *inner, kind = name.split("/")[1:]
    prefixes = {
      "lm_head": ["lm_head"],
      "layers": [f"model.layers.{i}" for i in range(config.num_layers)],
    }.get(first, ["model." + first.replace("layers_", "layers.")])
    end = "bias" if kind == "bias" else "weight"
    return Leaf(
      array.shape,
      tuple(".".join([prefix, *inner, end]) for prefix in prefixes),
      stacked=first == "layers",
      transposed=kind == "kernel",
    )

  return tree.map_leaves(leaf, shapes)
