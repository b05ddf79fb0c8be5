"""Rotary position embeddings.

Component i of the first half of a head and component i of its second half are
rotated by the angle `position * frequency_i`, so that products of queries and
keys depend on the difference of their positions alone:

    frequency_i = theta^(-2 i / d),    i = 0 .. d/2 - 1

Sources: J. Su et al., "RoFormer", arXiv:2104.09864; the halves are those of
published Llama checkpoints. Scaling: A. Grattafiori et al., "The Llama 3 Herd
of Models", arXiv:2407.21783, and the models released with it.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import validate


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
  """Frequencies slowed down for contexts longer than those of pre-training.

  With w the wavelength in positions and o the original length: unchanged where
  `w < o / high_freq_factor`, divided by `factor` where
  `w > o / low_freq_factor`, and between them mixed linearly in `o / w`.

  Attributes:
    factor: at least 1.
    low_freq_factor: positive.
    high_freq_factor: larger than `low_freq_factor`.
    original_max_length: positions of pre-training.
  """

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_length: int

  def __post_init__(self):
    validate.at_least(1, factor=self.factor)
    if not 0 < self.low_freq_factor < self.high_freq_factor:
      raise ValueError(
        f"low_freq_factor is {self.low_freq_factor} and high_freq_factor "
        f"{self.high_freq_factor}; they must be positive and increasing."
      )
    validate.at_least(1, original_max_length=self.original_max_length)


def inverse_frequencies(
  head_dim: int, theta: float, scaling: Llama3Scaling | None = None
) -> np.ndarray:
  """Angles per position, `[head_dim / 2]`, in double precision."""
  plain = theta ** -(np.arange(0, head_dim, 2) / head_dim)
  if scaling is None:
    return plain
  turns = scaling.original_max_length * plain / (2 * math.pi)
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  kept = np.clip((turns - low) / (high - low), 0, 1)
  return plain * (kept + (1 - kept) / scaling.factor)


def angles(
  positions: jax.Array,
  head_dim: int,
  theta: float,
  scaling: Llama3Scaling | None = None,
  dtype: Any = jnp.float32,
) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines `[..., 1, head_dim / 2]` of positions `[...]`."""
  frequency = jnp.asarray(inverse_frequencies(head_dim, theta, scaling), dtype)
  angle = positions.astype(dtype)[..., None, None] * frequency
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Heads `[n, length, heads, head_dim]` rotated by what `angles` gives."""
  cos, sin = angles
  first, second = jnp.split(x.astype(cos.dtype), 2, axis=-1)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
