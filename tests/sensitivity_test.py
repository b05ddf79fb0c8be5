"""Perturbations inside a mask, and their ratios."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from junlearn import sensitivity

KEY = jax.random.key(0)
MASK = np.array([[True, False, True], [False, False, False]])


def test_perturbations_stay_in_each_examples_mask():
  mask = sensitivity.masks(MASK, jnp.zeros((2, 3)))
  delta = sensitivity.masked_gaussian(
    KEY, mask, num_draws=50, sigma=(0.05, 1.0)
  )
  assert delta.shape == (50, 2, 3)
  assert delta.dtype == jnp.float32
  np.testing.assert_array_equal(np.any(delta != 0, axis=0), MASK)


def test_scales_are_uniform_and_each_draws_own():
  """With many masked values the norm tells the scale of a draw."""
  low, high, size = 0.2, 0.9, 4000
  delta = sensitivity.masked_gaussian(
    KEY, jnp.ones((40, size)), num_draws=10, sigma=(low, high)
  )
  scale = np.linalg.norm(delta, axis=-1).ravel() / np.sqrt(size)
  assert len(np.unique(scale)) == 400
  # The norm of Gaussian noise spreads by 1 / sqrt(2 size), about 1 %.
  uniform = stats.uniform(low, high - low)
  assert stats.kstest(scale, uniform.cdf).pvalue > 0.01
  assert stats.kstest(scale, stats.uniform(0.2, 0.9).cdf).pvalue < 1e-6


def test_noise_can_be_shared_along_axes():
  """The marked pixels of a channel move together, the channels do not."""
  mask = np.ones((2, 3, 4, 2), np.float32)
  mask[:, 0] = 0
  delta = sensitivity.masked_gaussian(
    KEY, jnp.asarray(mask), num_draws=5, sigma=(0.5, 1.0), shared_axes=(0, 1)
  )
  moved = np.asarray(delta)[:, :, 1, 0]
  assert len(np.unique(moved)) == 5 * 2 * 2
  np.testing.assert_array_equal(delta, mask * moved[:, :, None, None])


def test_ratios_by_hand():
  clean = jnp.array([[1.0, 2.0]])
  moved = jnp.array([[[4.0, 6.0]], [[1.0, 2.0]]])
  delta = jnp.array([[[0.0, 2.0]], [[3.0, 4.0]]])
  found = sensitivity.ratios(clean, moved, delta)
  np.testing.assert_allclose(found, [[2.5], [0.0]], atol=1e-6)
  undivided = sensitivity.ratios(clean, moved, delta, divide=False)
  np.testing.assert_allclose(undivided, [[5.0], [0.0]], atol=1e-5)


def test_gradient_is_finite_where_nothing_changes():
  def total(clean):
    zero = jnp.zeros((1, 1, 2))
    return jnp.sum(sensitivity.ratios(clean, zero, zero))

  value, gradient = jax.value_and_grad(total)(jnp.zeros((1, 2)))
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("sigma", [(0, 1), (0.5, 0.1), (-1, 1), (1, np.inf)])
def test_sigma_is_checked(sigma):
  with pytest.raises(ValueError, match="sigma is"):
    sensitivity.check_sigma(sigma)


@pytest.mark.parametrize("shape", [(2,), (3, 3), (1, 3), ()])
def test_shape_of_the_mask_is_checked(shape):
  with pytest.raises(ValueError, match="mask has shape"):
    sensitivity.masks(np.ones(shape), jnp.zeros((2, 3)))
