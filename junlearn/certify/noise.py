"""Gaussian noise on parameters, drawn once per release, on the host.

    w -> [w] + [b],   b ~ N(0, sigma^2 I),   [.] the nearest multiples of g

The grid `g`, a power of two near `sigma / 2^20`, is public. On it sums are
exact, so that the release is the same as if the reals were at hand; rounding
the params moves two models apart by at most `rounding` (`certify`, lemma 8).

**Guarantees**: the entropy is the operating system's, 128 bits a number, and
kept nowhere: there is no key to guess, to store or to use again. What is
neglected is the error of SciPy's normal quantile, a few units in the last
place, against cells of `2^-20 sigma`: it changes the log-probability of each
number by less than 1e-8.
"""

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from junlearn import tree
from junlearn.typing import Params

# "joint": independent noise on every number, for a bound on all of them
# together. "row": one draw for all rows of axis 0, which must be equal, for a
# bound on one of them.
Norm = Literal["joint", "row"]
Entropy = Callable[[int], bytes]

# Points of the grid in a standard deviation, at least. Rounding then costs
# next to nothing, and 2^32 standard deviations fit a double.
_STEPS = 20
_EXACT = 52  # multiples of the grid up to 2^52 times it add exactly
_SMALLEST = 2.0**-960


def grid(sigma: float) -> float:
  """The power of two `g` with `2^20 <= sigma / g < 2^21`.

  Raises:
    ValueError: if `sigma` is not finite, or too small for doubles.
  """
  if not _SMALLEST <= sigma < math.inf:
    raise ValueError(
      f"sigma is {sigma}; it must be finite and at least {_SMALLEST:.3g}."
    )
  return 2.0 ** (math.frexp(sigma)[1] - 1 - _STEPS)


def dimensions(params: Params, norm: Norm) -> int:
  """How many parameters get a draw: all, or those of one row."""
  count = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
  return count // tree.size(params) if norm == "row" else count


def rounding(step: float, dimensions: int) -> float:
  """Distance that rounding two models to a grid adds: `g sqrt(d)`."""
  return step * math.sqrt(dimensions)


def add(
  params: Params,
  *,
  sigma: float,
  step: float,
  norm: Norm,
  entropy: Entropy = secrets.token_bytes,
) -> Params:
  """The params on the grid, with noise.

  Args:
    params: float64 leaves of any shapes; `[rows, ...]` of equal rows where the
      norm is "row".
    sigma: standard deviation of every number.
    step: of the grid, by `grid`.
    norm: what the noise is shared by.
    entropy: `number of bytes -> bytes`; anything but the operating system's is
      for tests.

  Returns:
    JAX arrays; structure and shapes are kept.

  Raises:
    ValueError: if a leaf is not float64, double precision is off, rows differ,
      or sigma is below `2^20` spacings of doubles near the largest param.
  """
  check_float64(params)
  # NumPy's maximum, unlike Python's, is NaN where one of them is.
  leaves = jax.tree.leaves(params)
  largest = float(np.max([np.max(np.abs(x), initial=0) for x in leaves]))
  # A factor of 2 leaves room for the noise.
  if not 2 * largest < 2.0**_EXACT * step:
    least = 2.0 ** (_STEPS + 2 - _EXACT) * largest
    raise ValueError(
      f"sigma is {sigma:.3g}, against a param of {largest:.3g}; it must be at "
      f"least {least:.3g} (2^{_STEPS} spacings of doubles there), or the low "
      "digits would show through: allow a larger max_distance."
    )

  def noisy(name, leaf):
    values = np.asarray(leaf)
    if norm == "row":
      _check_rows(name, values)
      values = values[:1]
    draws = normal(values.shape, entropy) * (sigma / step)
    whole = np.rint(values / step) + np.rint(draws)
    # The sign of a zero would tell that of the param.
    released = whole * step + 0.0
    return jnp.asarray(np.broadcast_to(released, np.shape(leaf)))

  return tree.map_leaves(noisy, params)


def normal(
  shape: tuple[int, ...], entropy: Entropy = secrets.token_bytes
) -> np.ndarray:
  """Standard normal numbers, by the quantile of uniform ones.

  The uniform numbers in (0, 1/2) have full relative precision, so that the
  tails are neither cut off nor coarse.
  """
  words = np.frombuffer(entropy(16 * math.prod(shape)), np.uint64)
  high, low = words.reshape(2, *shape)
  sign = np.where(low & np.uint64(1), 1.0, -1.0)
  fraction = (low.astype(np.float64) + 0.5) * 2.0**-64
  return sign * special.ndtri((high.astype(np.float64) + fraction) * 2.0**-65)


def check_float64(params: Params) -> None:
  """Refuses params that are not, or would not stay, in double precision.

  Raises:
    ValueError: naming the first leaf of another dtype, or the setting.
  """

  def check(name, leaf):
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    if dtype != np.float64:
      raise ValueError(
        f"params has the leaf {name!r} of dtype {dtype}; certified "
        "releases need float64 (jax_enable_x64)."
      )

  tree.map_leaves(check, params)
  if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
    raise ValueError(
      "jax_enable_x64 is False, so that float64 params would become float32; "
      "certified releases need it True."
    )


def check_state(params: Params) -> None:
  """Refuses what stands beside flax's `params`.

  Raises:
    ValueError: naming the first collection of state that is not empty.
  """
  if isinstance(params, Mapping) and "params" in params:
    state = [n for n in params if n != "params" and jax.tree.leaves(params[n])]
    if state:
      raise ValueError(
        f"params has {state[0]!r} beside 'params'; certified releases allow no "
        "state, such as batch statistics, which depends on forgotten examples."
      )


def _check_rows(name, values):
  if not values.shape:
    raise ValueError(
      f"the leaf {name!r} is a scalar; a bound of one row needs [rows, ...]."
    )
  if not np.array_equal(values, np.broadcast_to(values[:1], values.shape)):
    raise ValueError(
      f"the rows of the leaf {name!r} differ; noise shared by all rows would "
      "release their differences exactly, so they must be equal."
    )
