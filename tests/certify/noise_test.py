import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from junlearn.certify import noise

SIGMA = 0.37
KEY = jax.random.key(3)


def zeros():
  return {"a": jnp.zeros((40, 60), jnp.float64), "b": jnp.zeros((40, 5))}


def p_value(draws, sigma):
  return stats.kstest(np.ravel(draws), "norm", args=(0, sigma)).pvalue


def test_scale_is_sigma_and_no_other(x64):
  noisy = noise.independent(KEY, {"a": jnp.zeros((300, 100))}, SIGMA)["a"]
  assert p_value(noisy, SIGMA) > 0.01
  assert p_value(noisy, SIGMA * 1.1) < 1e-6
  assert p_value(noisy, SIGMA / 1.1) < 1e-6


def test_numbers_are_independent(x64):
  draws = jax.vmap(lambda k: noise.independent(k, zeros(), 1.0))(
    jax.random.split(KEY, 4)
  )
  flat = np.concatenate([np.ravel(leaf) for leaf in draws.values()])
  assert len(np.unique(flat)) == flat.size
  a, b = draws["a"][0, :, 0], draws["b"][0, :, 0]
  assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(40)


def test_equal_leaves_get_different_noise(x64):
  params = {"a": jnp.zeros(3), "b": jnp.zeros(3)}
  noisy = noise.independent(KEY, params, 1.0)
  assert not np.any(noisy["a"] == noisy["b"])


def test_shared_noise_is_the_same_in_all_rows(x64):
  noisy = noise.shared(KEY, zeros(), SIGMA)
  for leaf in jax.tree.leaves(noisy):
    np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
  one_row = noise.shared(KEY, {"a": jnp.zeros((2, 30000))}, SIGMA)["a"][0]
  assert p_value(one_row, SIGMA) > 0.01
  assert p_value(one_row, SIGMA * 1.1) < 1e-6


@pytest.mark.parametrize("add", [noise.independent, noise.shared])
def test_form_is_kept_and_zero_sigma_adds_nothing(x64, add):
  params = jax.tree.map(lambda leaf: leaf + 1, zeros())
  result = jax.jit(add)(KEY, params, 0.0)
  jax.tree.map(np.testing.assert_array_equal, result, params)
  again = add(KEY, params, SIGMA)
  jax.tree.map(np.testing.assert_array_equal, again, add(KEY, params, SIGMA))
  assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, params)


def test_fresh_keys_differ(x64):
  draws = {float(jax.random.normal(noise.fresh_key())) for _ in range(8)}
  assert len(draws) == 8


def test_single_precision_is_refused(x64):
  params = {"w": jnp.zeros(3), "v": jnp.zeros(3, jnp.float32)}
  with pytest.raises(ValueError, match=r"leaf 'v' of dtype float32"):
    noise.independent(KEY, params, 1.0)


def test_shared_noise_needs_rows(x64):
  with pytest.raises(ValueError, match="scalar"):
    noise.shared(KEY, {"w": jnp.zeros(())}, 1.0)
