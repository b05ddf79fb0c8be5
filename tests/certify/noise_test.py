import fractions
import math
import re

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import stats

from junlearn.certify import noise

SIGMA = 0.37
STEP = noise.grid(SIGMA)


def zeros():
  return {"a": jnp.zeros((40, 60)), "b": jnp.zeros((40, 5))}


def add(params, sigma=SIGMA, norm="joint", **options):
  step = noise.grid(sigma)
  return noise.add(params, sigma=sigma, step=step, norm=norm, **options)


def flat(params):
  leaves = jax.tree.leaves(params)
  return np.concatenate([np.ravel(leaf) for leaf in leaves])


def p_value(draws, sigma):
  return stats.kstest(np.ravel(draws), "norm", args=(0, sigma)).pvalue


def source(seed=0):
  """Entropy that can be drawn again."""
  return np.random.default_rng(seed).bytes


# The law.


@pytest.mark.parametrize("norm", ["joint", "row"])
def test_scale_is_sigma_and_no_other(x64, norm):
  params = {"a": jnp.zeros((2, 30000))}
  noisy = add(params, norm=norm, entropy=source())["a"][0]
  assert p_value(noisy, SIGMA) > 0.01
  assert p_value(noisy, SIGMA * 1.1) < 1e-6
  assert p_value(noisy, SIGMA / 1.1) < 1e-6


def test_numbers_are_independent(x64):
  draws = [add(zeros(), entropy=source(k)) for k in range(4)]
  every = np.concatenate([flat(each) for each in draws])
  # On a grid of 2^20 points a sigma some of 10,400 numbers are equal.
  assert len(np.unique(every)) > 0.99 * every.size
  a, b = draws[0]["a"][:, 0], draws[0]["b"][:, 0]
  assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(40)
  other = draws[1]["a"].ravel()
  same_place = np.corrcoef(draws[0]["a"].ravel(), other)[0, 1]
  assert abs(same_place) < 4 / np.sqrt(2400)


def test_joint_noise_differs_between_equal_rows_and_equal_leaves(x64):
  params = {"a": jnp.zeros((3, 4)), "b": jnp.zeros((3, 4))}
  noisy = add(params)
  assert not np.any(noisy["a"] == noisy["b"])
  for i, j in ((0, 1), (0, 2), (1, 2)):
    assert not np.any(noisy["a"][i] == noisy["a"][j])


def test_row_noise_is_the_same_in_all_rows(x64):
  noisy = add(zeros(), norm="row")
  for leaf in jax.tree.leaves(noisy):
    np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
  assert len(np.unique(noisy["a"][0])) == 60


def test_the_operating_system_draws_anew_each_time(x64):
  first, second = flat(add(zeros())), flat(add(zeros()))
  assert np.mean(first == second) < 0.01


# The tails.


def words(pairs):
  """Entropy that gives these pairs of 64-bit words."""
  high, low = np.array(pairs, np.uint64).T
  return lambda size: np.concatenate([high, low]).tobytes()


def quantile(high, low):
  """In 60 digits."""
  with mpmath.workdps(60):
    fraction = (mpmath.mpf(low) + 0.5) / mpmath.mpf(2) ** 64
    uniform = (high + fraction) / mpmath.mpf(2) ** 65
    sign = 1 if low % 2 else -1
    return float(sign * mpmath.sqrt(2) * mpmath.erfinv(2 * uniform - 1))


def test_quantiles_of_tiny_and_other_numbers():
  rng = np.random.default_rng(0)
  pairs = [(0, 0), (0, 1), (0, 7), (0, 2**63), (1, 0), (5, 2**40), (2**20, 3)]
  pairs += [(2**k, 2**k - 1) for k in range(21, 64, 3)]
  pairs += [tuple(map(int, rng.integers(2**63, size=2))) for _ in range(50)]
  found = noise.normal((len(pairs),), words(pairs))
  expected = [quantile(*pair) for pair in pairs]
  assert 13 < abs(expected[0]) < 14  # no tail is cut before
  np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_the_least_and_the_largest_words_are_finite(x64):
  most = 2**64 - 1
  for pair in ((0, 0), (0, most), (most, 0), (most, most)):
    drawn = noise.normal((1,), words([pair]))
    assert np.isfinite(drawn).all()
    noisy = add({"w": jnp.ones(1)}, entropy=words([pair]))["w"]
    assert np.isfinite(noisy).all()


# The grid.


@pytest.mark.parametrize("sigma", [1e-9, 0.37, 0.5, 1.0, np.nextafter(1, 0)])
def test_grid_is_a_power_of_two_near_sigma(sigma):
  step = noise.grid(sigma)
  assert math.frexp(step)[0] == 0.5
  assert 2**20 <= fractions.Fraction(sigma) / fractions.Fraction(step) < 2**21


def nearest(value, step):
  """The multiple of the step, in exact arithmetic, half to even."""
  step = fractions.Fraction(step)
  return round(fractions.Fraction(float(value)) / step) * step


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_every_number_is_the_exact_sum_of_two_multiples(x64, scale):
  """Also where params are nearly too large for the noise."""
  rng = np.random.default_rng(1)
  params = {"w": jnp.asarray(scale * rng.normal(size=300))}
  released = np.asarray(add(params, entropy=source(3))["w"])
  draws = noise.normal((300,), source(3))
  for after, before, draw in zip(released, params["w"], draws, strict=True):
    # The noise on the grid of the steps; the quotient is of one rounding.
    added = fractions.Fraction(round(float(draw * (SIGMA / STEP))))
    exact = nearest(before, STEP) + added * fractions.Fraction(STEP)
    assert fractions.Fraction(float(after)) == exact
    assert fractions.Fraction(float(after)) % fractions.Fraction(STEP) == 0


def test_low_digits_do_not_betray_the_params(x64):
  """What rounds to one point leads to the same releases, draw by draw."""
  rng = np.random.default_rng(2)
  points = np.rint(rng.normal(size=200) / STEP) * STEP
  near = points + STEP * rng.uniform(-0.49, 0.49, 200)
  assert (near != points).all()
  for seed in range(3):
    releases = [
      add({"w": jnp.asarray(w)}, entropy=source(seed))["w"]
      for w in (points, near, points + 5 * STEP)
    ]
    np.testing.assert_array_equal(releases[0], releases[1])
    # And what is five steps away to the same releases five steps away.
    np.testing.assert_array_equal(releases[2] - releases[0], 5 * STEP)


def test_rounding_adds_at_most_what_is_said():
  rng = np.random.default_rng(3)
  for numbers in (1, 10, 1000):
    a = rng.normal(size=numbers)
    b = a + STEP * rng.uniform(-2, 2, numbers)
    apart = np.linalg.norm(np.rint(a / STEP) - np.rint(b / STEP)) * STEP
    allowed = noise.rounding(STEP, numbers)
    assert apart <= np.linalg.norm(a - b) + allowed
    assert allowed == pytest.approx(STEP * numbers**0.5)
  # Half a step to either side of a point between two: nearly attained.
  a, b = np.full(100, 0.499), np.full(100, 0.501)
  apart = np.linalg.norm(np.rint(a) - np.rint(b))
  assert apart > np.linalg.norm(a - b) + 0.99 * noise.rounding(1.0, 100)


# The entropy.


def test_sixteen_bytes_a_number(x64):
  for norm, expected in (("joint", [2400, 200]), ("row", [60, 5])):
    sizes = []

    def spy(size, sizes=sizes):
      sizes.append(size)
      return bytes(size)

    add(zeros(), norm=norm, entropy=spy)
    assert sizes == [16 * numbers for numbers in expected]
    assert noise.dimensions(zeros(), norm) == sum(expected)


def test_every_byte_is_used_once(x64):
  """Each changes its own number and no other."""
  shape = (4,)
  rest = source()(64)
  before = noise.normal(shape, lambda size: rest[:size])
  for place in range(64):
    changed = bytearray(rest)
    changed[place] ^= 0xFF
    after = noise.normal(shape, lambda size, b=changed: bytes(b)[:size])
    others = np.arange(4) != place // 8 % 4
    np.testing.assert_array_equal(after[others], before[others])
    # The upper half of a high word, or the sign; doubles round the rest off.
    if (place < 32 and place % 8 >= 4) or (place >= 32 and place % 8 == 0):
      assert after[~others] != before[~others]


# What is refused.


@pytest.mark.parametrize("sigma", [0.0, -1.0, 1e-300, np.inf, np.nan])
def test_sigmas_out_of_range(sigma):
  with pytest.raises(
    ValueError, match=re.escape(f"sigma is {sigma}; it must be finite")
  ):
    noise.grid(sigma)


@pytest.mark.parametrize("largest", [1.0, 3.7e5])
def test_noise_too_small_for_doubles(x64, largest):
  params = {"v": jnp.zeros(2), "w": jnp.asarray([0.0, -largest])}
  least = 2.0**-30 * largest
  with pytest.raises(
    ValueError, match=re.escape(f"at least {least:.3g} ")
  ) as error:
    add(params, sigma=least / 4, entropy=lambda size: 1 / 0)
  assert f"against a param of {largest:.3g};" in str(error.value)
  assert np.isfinite(flat(add(params, sigma=least))).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["a", "b"])
def test_params_that_are_not_finite(x64, wrong, name):
  params = {"a": jnp.ones(3), "b": jnp.ones(3)}
  params[name] = params[name].at[1].set(wrong)
  with pytest.raises(
    ValueError, match=re.escape(f"against a param of {wrong};")
  ):
    add(params)


@pytest.mark.parametrize("change", [1.0, 1e-300])
def test_shared_noise_on_rows_that_differ(x64, change):
  params = {"w": jnp.zeros((3, 4)).at[2, 1].set(change)}
  with pytest.raises(ValueError, match="rows of the leaf 'w' differ"):
    add(params, norm="row")
  add(params)  # each its own


def test_shared_noise_needs_rows(x64):
  with pytest.raises(ValueError, match="'w' is a scalar"):
    noise.add(
      {"a": jnp.zeros((2, 3)), "w": jnp.zeros(())},
      sigma=SIGMA,
      step=STEP,
      norm="row",
    )


def test_form_is_kept(x64):
  params = {"a": np.ones((3, 2)), "b": (jnp.ones(()), jnp.ones((2, 1, 2)))}
  noisy = add(params)
  assert jax.tree.structure(noisy) == jax.tree.structure(params)
  assert jax.tree.map(np.shape, noisy) == jax.tree.map(np.shape, params)
  for leaf in jax.tree.leaves(noisy):
    assert isinstance(leaf, jax.Array) and leaf.dtype == jnp.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64])
def test_other_precisions(x64, dtype):
  params = {"w": jnp.zeros(3), "v": np.zeros(3, dtype)}
  with pytest.raises(
    ValueError,
    match=re.escape(f"leaf 'v' of dtype {np.dtype(dtype)}; certified"),
  ):
    add(params)


def test_doubles_that_would_not_stay():
  """NumPy's, where JAX has single precision."""
  with pytest.raises(ValueError, match="jax_enable_x64 is False"):
    add({"w": np.zeros(3)})


def test_state_beside_params():
  noise.check_state({"params": 1.0, "batch_stats": {}})
  with pytest.raises(ValueError, match="'batch_stats' beside 'params'"):
    noise.check_state({"params": 1.0, "batch_stats": {"mean": 0.0}})
