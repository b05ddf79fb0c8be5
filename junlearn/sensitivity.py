"""How much a model's outputs hang on one feature of its inputs.

A feature is a mask over an input: a box of pixels, a column. The sensitivity
of one example to it is a Lipschitz-type ratio over random perturbations that
are confined to the mask,

    s(x) = (1/N) sum_i |f(x) - f(x + delta_i)| / |delta_i|,
    delta_i = sigma_i M xi_i,  xi_i ~ N(0, I),  sigma_i ~ U[low, high],

with Euclidean norms over the whole output and the whole input of an example.

Source: H. Gu et al., "Ferrari: Federated Feature Unlearning via Optimizing
Feature Sensitivity", NeurIPS 2024, arXiv 2405.17462.
"""

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from junlearn.typing import Key

_EPSILON = 1e-12  # keeps the gradient of |0| finite


def check_sigma(sigma: tuple[float, float]) -> None:
  """Refuses scales that are no interval of positive numbers.

  Raises:
    ValueError: naming the scales.
  """
  low, high = sigma
  if not 0 < low <= high < float("inf"):
    raise ValueError(
      f"sigma is {tuple(sigma)}; it must be two positive numbers, the smaller "
      "first."
    )


def masks(mask: ArrayLike, inputs: jax.Array) -> jax.Array:
  """The mask of every example `[n, ...]`, in the inputs' shape and dtype.

  Args:
    mask: numbers or booleans of one input's shape, or one such for every
      example.
    inputs: `[n, ...]`.

  Raises:
    ValueError: if the mask has another shape.
  """
  mask = jnp.asarray(mask)
  if mask.shape not in (inputs.shape[1:], inputs.shape):
    raise ValueError(
      f"mask has shape {mask.shape}; it must be that of one input, "
      f"{inputs.shape[1:]}, or of all inputs, {inputs.shape}."
    )
  return jnp.broadcast_to(mask, inputs.shape).astype(inputs.dtype)


def masked_gaussian(
  key: Key,
  mask: jax.Array,
  *,
  num_draws: int,
  sigma: tuple[float, float],
  shared_axes: tuple[int, ...] = (),
) -> jax.Array:
  """Perturbations `[draws, n, ...]` confined to each example's mask.

  Args:
    key: PRNG key.
    mask: floats `[n, ...]`, see `masks`.
    num_draws: perturbations of every example.
    sigma: each perturbation has its own scale, uniform in [low, high], in
      units of the inputs.
    shared_axes: axes of one input along which the noise is the same, for a
      feature that many values share: `(0, 1)` moves all marked pixels of a
      channel together, as a color does.
  """
  scale_key, noise_key = jax.random.split(key)
  shape = (num_draws, *mask.shape)
  scale = jax.random.uniform(
    scale_key,
    shape[:2] + (1,) * (mask.ndim - 1),
    mask.dtype,
    minval=sigma[0],
    maxval=sigma[1],
  )
  distinct = [
    1 if axis in shared_axes else size
    for axis, size in enumerate(mask.shape[1:])
  ]
  noise = jax.random.normal(noise_key, (*shape[:2], *distinct), mask.dtype)
  return scale * mask * noise


def norm(x: jax.Array, num_axes: int) -> jax.Array:
  """Euclidean norm over all but the first `num_axes` axes."""
  axes = tuple(range(num_axes, x.ndim))
  return jnp.sqrt(jnp.sum(jnp.square(x), axes) + _EPSILON)


def ratios(
  clean: jax.Array, moved: jax.Array, delta: jax.Array, *, divide: bool = True
) -> jax.Array:
  """Output change over input change `[draws, n]`.

  Args:
    clean: outputs of the inputs `[n, ...]`.
    moved: outputs of the perturbed inputs `[draws, n, ...]`.
    delta: the perturbations `[draws, n, ...]`.
    divide: False leaves the output change undivided.
  """
  change = norm(clean - moved, 2)
  return change / norm(delta, 2) if divide else change
