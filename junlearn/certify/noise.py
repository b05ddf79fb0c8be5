"""Gaussian noise on parameters, drawn once per release.

    (key, params, sigma) -> params + b,  b ~ N(0, sigma^2 I)

**Guarantees** of the mechanism are over the reals; the samples are 64-bit
floats from JAX's counter-based generator, and nobody may know the key. A key
made of a small seed can be guessed: use `fresh_key`, and never store it.
"""

import secrets
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree

Noise = Callable[[jax.Array, Any, Any], Any]


def fresh_key() -> jax.Array:
  """A key from the operating system's entropy, on the host.

  JAX's default keys have 64 bits.
  """
  shape = jax.random.key_data(jax.random.key(0)).shape
  words = np.frombuffer(secrets.token_bytes(4 * shape[-1]), np.uint32)
  return jax.random.wrap_key_data(jnp.asarray(words))


def independent(key: jax.Array, params: Any, sigma: Any) -> Any:
  """Independent noise on every number: the joint release of all rows.

  Args:
    key: PRNG key.
    params: float64 leaves of any shapes.
    sigma: standard deviation, scalar, at least 0; may be traced.

  Returns:
    The params with noise; structure, shapes and dtypes are kept.

  Raises:
    ValueError: if a leaf is not float64.
  """
  return _add(key, params, sigma, lambda shape: shape)


def shared(key: jax.Array, params: Any, sigma: Any) -> Any:
  """One draw for all rows of axis 0: the release of a consensus.

  For rows that are equal. Where they differ, their differences are released
  without noise. Arguments as in `independent`; leaves are `[rows, ...]`.

  Raises:
    ValueError: if a leaf is not float64 or has no axis 0.
  """

  def one_row(shape):
    if not shape:
      raise ValueError("shared: a leaf is a scalar; it must be [rows, ...].")
    return (1, *shape[1:])

  return _add(key, params, sigma, one_row)


def check_float64(params: Any) -> None:
  """Refuses params that are not double precision.

  Raises:
    ValueError: naming the first leaf of another dtype.
  """

  def check(name, leaf):
    if leaf.dtype != jnp.float64:
      raise ValueError(
        f"params has the leaf {name!r} of dtype {leaf.dtype}; certified "
        "releases need float64 (jax_enable_x64)."
      )

  tree.map_leaves(check, params)


def _add(key, params, sigma, drawn_shape):
  check_float64(params)
  leaves, structure = jax.tree.flatten(params)
  # Keys are split, not folded from names: two names may share a checksum.
  keys = jax.random.split(key, len(leaves))
  sigma = jnp.asarray(sigma, jnp.float64)
  noisy = [
    leaf + sigma * jax.random.normal(k, drawn_shape(leaf.shape), leaf.dtype)
    for k, leaf in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(structure, noisy)
