"""Quantization: what rounding the weights brings back.

Unlearning with small steps moves most weights by less than a bin of a coarse
grid, so rounding can undo it: the quantized model is then nearly that of the
original. Weights are rounded to the nearest point of a grid,

    q = s l_c,   c = argmin_i |w / s - l_i|,   s = max |w| of the weight's block

    symmetric  l = k / (2^(bits-1) - 1) for k = -(2^(bits-1) - 1), ..., and one
               block an output channel
    nf4        the 16 levels of NormalFloat in blocks of 64 (QLoRA)

and kept in the dtype that they had: this shows what rounding does to a model,
and saves no memory.

Source: Zhang et al. (arXiv 2410.16454) for the attack; Dettmers et al.
(arXiv 2305.14314, appendix E) for NF4.
"""

import functools
import itertools
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from junlearn import tree, validate
from junlearn.typing import Params

Scheme = Literal["symmetric", "nf4"]

# Kernels `[..., in, out]` and embeddings `[rows, features]`; norms and biases,
# which stacked layers make matrices too, stay as they are.
WEIGHTS = "(kernel|embedding)$"


def quantize(
  params: Params,
  *,
  bits: int = 4,
  scheme: Scheme = "symmetric",
  pattern: str = WEIGHTS,
) -> Params:
  """The params with their weights rounded to the grid.

  An output channel is a column of a kernel `[..., in, out]`, in each layer of
  a stack or each place of a convolution by itself, and a row of an embedding.
  Adapters must be merged before.

  Args:
    params: pytree.
    bits: of a code, from 2 to 8; 4 for "nf4".
    scheme: "symmetric" or "nf4".
    pattern: regular expression found in the names of the leaves to round;
      those of fewer than two axes are never rounded. The default takes the
      head and the embeddings too, which common loaders leave in full.

  Returns:
    Params of the same structure, shapes and dtypes.

  Guarantees:
    |w - q| <= s / 2 / (2^(bits-1) - 1) for "symmetric", up to the roundoff of
    the leaf's dtype.

  Raises:
    ValueError: if `bits` or `scheme` is out of range, or the pattern finds no
      leaf to round.
  """
  levels, block = _grid(bits, scheme)
  return _map_weights(
    lambda name, leaf: _rounded(leaf, levels, block, _by_row(name))[0],
    lambda leaf: leaf,
    params,
    pattern,
  )


def codes(
  params: Params,
  *,
  bits: int = 4,
  scheme: Scheme = "symmetric",
  pattern: str = WEIGHTS,
) -> Any:
  """The number of each weight's level, uint8; None for leaves not rounded.

  Args and Raises: as `quantize`.
  """
  levels, block = _grid(bits, scheme)
  return _map_weights(
    lambda name, leaf: _rounded(leaf, levels, block, _by_row(name))[1],
    lambda leaf: None,
    params,
    pattern,
  )


def same_codes(
  params: Params,
  reference: Params,
  *,
  bits: int = 4,
  scheme: Scheme = "symmetric",
  pattern: str = WEIGHTS,
) -> float:
  """Fraction of the weights whose code is that of the reference, in [0, 1].

  Beside the quantized metrics it tells why they come back: near 1, rounding
  maps the unlearned model to the original.

  Args:
    params: of the unlearned model.
    reference: of the original model.
    bits: as for `quantize`.
    scheme: as for `quantize`.
    pattern: as for `quantize`.

  Raises:
    ValueError: as `quantize`.
  """
  pairs = [
    jax.tree.leaves(codes(each, bits=bits, scheme=scheme, pattern=pattern))
    for each in (params, reference)
  ]
  equal = sum(int(jnp.sum(a == b)) for a, b in zip(*pairs, strict=True))
  return equal / sum(leaf.size for leaf in pairs[0])


def _by_row(name):
  return name.endswith("embedding")


def _map_weights(function, otherwise, params, pattern):
  matcher = re.compile(pattern)
  found = []

  def leaf(name, value):
    if value.ndim < 2 or not matcher.search(name):
      return otherwise(value)
    found.append(name)
    return function(name, value)

  result = tree.map_leaves(leaf, params)
  if not found:
    raise ValueError(
      f"pattern is {pattern!r}, which finds no leaf of two axes or more."
    )
  return result


def _grid(bits, scheme):
  """Levels in [-1, 1] and the length of a block (None: a whole channel)."""
  validate.one_of(("symmetric", "nf4"), scheme=scheme)
  if scheme == "nf4":
    if bits != 4:
      raise ValueError(f"bits is {bits}; for the scheme 'nf4' it must be 4.")
    return _normal_float(), 64
  validate.within("[2, 8]", bits=bits)
  largest = 2 ** (bits - 1) - 1
  return tuple(k / largest for k in range(-largest, largest + 1)), None


@functools.cache
def _normal_float():
  """Quantiles of the normal distribution: 0, 8 levels above it and 7 below.

  Both sides begin at the same quantile, the mean of the outermost ones of 15
  and of 16 equal parts, so that the ends are -1 and 1.
  """
  outer = 1 - (1 / 30 + 1 / 32) / 2
  above, below = (
    stats.norm.ppf(np.linspace(outer, 0.5, count + 1)[:-1]) for count in (8, 7)
  )
  levels = np.sort(np.concatenate([-below, [0], above]))
  return tuple((levels / levels[-1]).tolist())


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _rounded(leaf, levels, block, by_row):
  """The rounded leaf, and the codes in the same shape."""
  dtype = leaf.dtype if leaf.dtype.itemsize >= 4 else jnp.float32
  channels = leaf if by_row else jnp.swapaxes(leaf, -1, -2)
  blocks = channels.astype(dtype)
  if block is not None:  # of a matrix, row by row; the last one is filled up
    flat = blocks.reshape(*leaf.shape[:-2], -1)
    fill = [(0, 0)] * (flat.ndim - 1) + [(0, -flat.shape[-1] % block)]
    blocks = jnp.pad(flat, fill).reshape(*leaf.shape[:-2], -1, block)
  scale = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
  middles = [(a + b) / 2 for a, b in itertools.pairwise(levels)]
  code = jnp.searchsorted(
    jnp.asarray(middles, dtype), blocks / jnp.where(scale == 0, 1, scale)
  )
  rounded = scale * jnp.asarray(levels, dtype)[code]

  def restore(values, dtype):
    if block is not None:
      values = values.reshape(*leaf.shape[:-2], -1)
      values = values[..., : channels.shape[-1] * channels.shape[-2]]
    values = values.reshape(channels.shape).astype(dtype)
    return values if by_row else jnp.swapaxes(values, -1, -2)

  return restore(rounded, leaf.dtype), restore(code, jnp.uint8)
