import math

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from junlearn.certify import calibrate

# epsilon, distance / sigma: from tiny to where e^epsilon overflows.
CASES = [
  (0.0, 1e-4),
  (0.0, 3.0),
  (1e-3, 2e-3),
  (0.1, 0.05),
  (1.0, 0.268),
  (1.0, 5.0),
  (8.0, 1.0),
  (50.0, 4.0),
  (50.0, 30.0),
  (900.0, 30.0),
  (900.0, 60.0),
]


def exact_delta(epsilon, mu):
  """The formula in 60 digits."""
  with mpmath.workdps(60):
    epsilon, mu = mpmath.mpf(epsilon), mpmath.mpf(mu)
    first = mpmath.ncdf(mu / 2 - epsilon / mu)
    return first - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize(("epsilon", "mu"), CASES)
def test_delta_is_the_formula(epsilon, mu):
  delta = calibrate.gaussian_delta(epsilon, 3 * mu, 3.0)
  exact = exact_delta(epsilon, mu)
  assert abs(delta - exact) <= 1e-10 * exact


def test_delta_is_the_formula_at_random():
  """Anywhere in the range of the docstring, half where epsilon is tiny."""
  rng = np.random.default_rng(0)
  checked = 0
  while checked < 100:
    mu = 10 ** rng.uniform(-15, math.log10(60))
    a = rng.uniform(-37, mu / 2)  # the formula's first argument
    epsilon = (
      mu * (mu / 2 - a) if checked % 2 else mu * 10 ** rng.uniform(-9, 1)
    )
    exact = exact_delta(epsilon, mu)
    if epsilon <= 1e3 and exact > 1e-300:
      delta = calibrate.gaussian_delta(epsilon, mu, 1.0)
      assert abs(delta - exact) <= 1e-10 * exact, (epsilon, mu)
      checked += 1


@pytest.mark.parametrize(("epsilon", "mu"), [(0.3, 0.4), (1.0, 1.5), (3, 0.9)])
def test_delta_is_the_hockey_stick_divergence(epsilon, mu):
  def excess(x):
    return stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x)

  threshold = mu / 2 + epsilon / mu  # where the excess changes sign
  integral, _ = integrate.quad(excess, threshold, threshold + 40, epsabs=1e-14)
  delta = calibrate.gaussian_delta(epsilon, mu, 1.0)
  np.testing.assert_allclose(delta, integral, rtol=1e-8)


def test_published_values():
  assert round(calibrate.gaussian_sigma(1.0, 1e-5, 1.0), 2) == 3.73
  assert round(calibrate.classical_sigma(1.0, 1e-5, 1.0), 2) == 4.84


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 10.0, 200.0])
@pytest.mark.parametrize("delta", [1e-300, 1e-12, 1e-5, 0.1, 0.99, 1 - 1e-13])
def test_sigma_is_the_smallest_and_on_the_safe_side(epsilon, delta):
  distance = 2.5
  sigma = calibrate.gaussian_sigma(epsilon, delta, distance)
  assert exact_delta(epsilon, distance / sigma) <= delta
  assert exact_delta(epsilon, distance / (sigma * (1 - 1e-8))) > delta


def test_sigma_is_the_smallest_and_on_the_safe_side_at_random():
  rng = np.random.default_rng(1)
  for _ in range(500):
    epsilon = 10 ** rng.uniform(-12, math.log10(50))
    delta = 10 ** rng.uniform(-15, math.log10(0.5))
    sigma = calibrate.gaussian_sigma(epsilon, delta, 1.0)
    assert exact_delta(epsilon, 1 / mpmath.mpf(sigma)) <= delta
    assert exact_delta(epsilon, (1 + 1e-7) / mpmath.mpf(sigma)) > delta
    assert calibrate.gaussian_epsilon(delta, 1.0, sigma) <= epsilon


def test_epsilon_is_on_the_safe_side_where_it_is_nearly_zero():
  rng = np.random.default_rng(2)
  for _ in range(100):
    mu = 10 ** rng.uniform(-12, 1)
    below = 1 - 10 ** rng.uniform(-13, -1)
    delta = calibrate.gaussian_delta(0.0, mu, 1.0) * below
    epsilon = calibrate.gaussian_epsilon(delta, mu, 1.0)
    assert exact_delta(epsilon, mu) <= delta


@pytest.mark.parametrize("mu", [1e-3, 0.3, 2.0, 20.0])
@pytest.mark.parametrize("delta", [1e-100, 1e-5, 0.3])
def test_epsilon_is_the_smallest_and_on_the_safe_side(delta, mu):
  epsilon = calibrate.gaussian_epsilon(delta, 2 * mu, 2.0)
  assert exact_delta(epsilon, mu) <= delta
  if exact_delta(0.0, mu) > delta:
    assert exact_delta(epsilon * (1 - 1e-8), mu) > delta
  else:
    assert epsilon == 0


def test_sigma_and_epsilon_are_inverse():
  sigma = calibrate.gaussian_sigma(0.7, 1e-6, 0.01)
  epsilon = calibrate.gaussian_epsilon(1e-6, 0.01, sigma)
  np.testing.assert_allclose(epsilon, 0.7, rtol=1e-7)


def test_classical_sigma_is_sufficient_where_it_is_allowed():
  for epsilon in np.geomspace(1e-3, 1, 7):
    for delta in (1e-12, 1e-5, 0.1, 0.5, 0.99):
      classical = calibrate.classical_sigma(epsilon, delta, 1.0)
      assert exact_delta(epsilon, 1 / classical) <= delta
      assert classical >= calibrate.gaussian_sigma(epsilon, delta, 1.0)


@pytest.mark.parametrize(
  ("epsilon", "distance", "sigma", "delta"),
  [
    (1.0, 1e308, 1e-308, 1.0),  # distance / sigma overflows
    (1e308, 1e200, 1e-200, 1.0),
    (1e308, 1e-308, 1.0, 0.0),  # epsilon / mu overflows: truly no delta
    (1.0, 1e308, 1.0, 1.0),
    (1e308, 1e155, 1.0, 1.0),
    (1e308, 1e308, 1e308, 0.0),
  ],
)
def test_delta_of_huge_numbers(epsilon, distance, sigma, delta):
  assert calibrate.gaussian_delta(epsilon, distance, sigma) == delta


def test_epsilon_of_huge_numbers():
  """It grows as `mu^2 / 2`, until no double holds it."""
  for mu in (1e9, 1e80, 1e153):
    epsilon = calibrate.gaussian_epsilon(1e-5, mu, 1.0)
    np.testing.assert_allclose(epsilon, mu**2 / 2, rtol=2e-8)
  for distance, sigma in ((1e155, 1.0), (1e308, 1.0), (1e308, 1e-308)):
    assert calibrate.gaussian_epsilon(1e-5, distance, sigma) == math.inf
  assert calibrate.gaussian_epsilon(1e-5, 1.0, 1e308) == 0


def test_few_steps_whatever_the_size(monkeypatch):
  calls = []
  exact = calibrate._log_delta
  monkeypatch.setattr(
    calibrate, "_log_delta", lambda *args: calls.append(1) or exact(*args)
  )
  calibrate.gaussian_sigma(1e-300, 1e-300, 1.0)
  calibrate.gaussian_sigma(1e300, 0.5, 1.0)
  calibrate.gaussian_epsilon(1e-5, 1e155, 1.0)
  assert len(calls) < 200


def test_numbers_of_single_precision_are_not_rounded_on_the_way():
  args = np.float32(0.1), np.float32(1e-5), np.float32(0.3)
  sigma = calibrate.gaussian_sigma(*args)
  assert exact_delta(float(args[0]), float(args[2]) / sigma) <= float(args[1])
  assert calibrate.gaussian_epsilon(args[1], args[2], sigma) <= args[0]


def test_no_distance_needs_no_delta():
  assert calibrate.gaussian_delta(0.0, 0.0, 1.0) == 0
  assert calibrate.gaussian_epsilon(1e-9, 0.0, 1.0) == 0


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: calibrate.gaussian_delta(-1, 1, 1), "epsilon is -1"),
    (lambda: calibrate.gaussian_delta(math.nan, 1, 1), "epsilon is nan"),
    (lambda: calibrate.gaussian_delta(1, -1, 1), "distance is -1"),
    (lambda: calibrate.gaussian_delta(1, 1, 0), "sigma is 0"),
    (lambda: calibrate.gaussian_sigma(0, 1e-5, 1), "epsilon is 0"),
    (lambda: calibrate.gaussian_sigma(math.inf, 1e-5, 1), "epsilon is inf"),
    (lambda: calibrate.gaussian_sigma(1, 0, 1), "delta is 0"),
    (lambda: calibrate.gaussian_sigma(1, 1, 1), "delta is 1"),
    (lambda: calibrate.gaussian_sigma(1, 1e-5, 0), "distance is 0"),
    (lambda: calibrate.gaussian_sigma(1, 1e-5, math.inf), "distance is inf"),
    (lambda: calibrate.gaussian_sigma(1, 1e-5, 1e308), r"distance is 1e\+308"),
    (lambda: calibrate.gaussian_sigma(9, 0.5, 2e-308), "distance is 2e-308"),
    (lambda: calibrate.gaussian_sigma(1e308, 0.5, 1e-200), r"not 0\.0"),
    (lambda: calibrate.gaussian_epsilon(2, 1, 1), "delta is 2"),
    (lambda: calibrate.classical_sigma(1.1, 1e-5, 1), r"epsilon is 1\.1"),
    (lambda: calibrate.classical_sigma(1, 1e-5, 1e308), r"is 1e\+308"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
