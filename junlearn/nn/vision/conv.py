"""Convolution in two forms, chosen by platform.

XLA's convolution inside `scan` or `while_loop` is 10 to 50 times slower on CPU
than outside, and `vmap` over kernels makes a grouped convolution of it. As
shifted slices and one matrix product it is fast everywhere on CPU; on GPU and
TPU XLA's own form wins. Both give the same values up to rounding.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

_LAYOUT = jax.lax.conv_dimension_numbers(
  (1,) * 4, (1,) * 4, ("NHWC", "HWIO", "NHWC")
)


def matmul_conv(
  inputs: jax.Array,
  kernel: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  *,
  precision: Any = None,
  preferred_element_type: Any = None,
) -> jax.Array:
  """Two-dimensional convolution as shifted slices and one matrix product.

  Args:
    inputs: `[n, h, w, c]`.
    kernel: `[kh, kw, c, features]`.
    window_strides: strides along `h` and `w`.
    padding: "SAME", "VALID", or low and high padding of `h` and of `w`.
    precision: as in `jax.numpy.matmul`.
    preferred_element_type: as in `jax.numpy.matmul`.

  Returns:
    `[n, h', w', features]`.
  """
  height, width, channels, features = kernel.shape
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(
      inputs.shape[1:3], (height, width), window_strides, padding
    )
  padded = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
  rows = (padded.shape[1] - height) // window_strides[0] + 1
  columns = (padded.shape[2] - width) // window_strides[1] + 1

  def shifted(i, j):
    stop = (
      i + (rows - 1) * window_strides[0] + 1,
      j + (columns - 1) * window_strides[1] + 1,
    )
    return padded[
      :, i : stop[0] : window_strides[0], j : stop[1] : window_strides[1]
    ]

  patches = jnp.concatenate(
    [shifted(i, j) for i in range(height) for j in range(width)], axis=-1
  )
  # With two axes XLA's gradient is a plain product; with four it transposes.
  outputs = jnp.matmul(
    patches.reshape(-1, patches.shape[-1]),
    kernel.reshape(height * width * channels, features),
    precision=precision,
    preferred_element_type=preferred_element_type,
  )
  return outputs.reshape(*patches.shape[:-1], features)


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: Any = None,
  feature_group_count: int = 1,
  precision: Any = None,
  **kwargs: Any,
) -> jax.Array:
  """Drop-in for `jax.lax.conv_general_dilated` in flax's `Conv`.

  On CPU, convolutions of two dimensions without dilation and groups, as flax
  lays them out (NHWC, HWIO), are matrix products; everything else is XLA's.

  Example: `nn.Conv(16, (3, 3), conv_general_dilated=conv_general_dilated)`.
  """
  layout = jax.lax.conv_dimension_numbers(
    lhs.shape, rhs.shape, dimension_numbers
  )
  plain = (
    lhs.ndim == 4
    and layout == _LAYOUT
    and feature_group_count == 1
    and set(lhs_dilation or (1,)) == {1}
    and set(rhs_dilation or (1,)) == {1}
  )
  if plain and jax.default_backend() == "cpu":
    return matmul_conv(
      lhs, rhs, window_strides, padding, precision=precision, **kwargs
    )
  return jax.lax.conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=lhs_dilation,
    rhs_dilation=rhs_dilation,
    dimension_numbers=dimension_numbers,
    feature_group_count=feature_group_count,
    precision=precision,
    **kwargs,
  )
