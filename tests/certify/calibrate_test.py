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
  assert abs(delta - exact_delta(epsilon, mu)) <= 1e-9 * exact_delta(
    epsilon, mu
  )


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
@pytest.mark.parametrize("delta", [1e-300, 1e-12, 1e-5, 0.1, 0.99])
def test_sigma_is_the_smallest_and_on_the_safe_side(epsilon, delta):
  distance = 2.5
  sigma = calibrate.gaussian_sigma(epsilon, delta, distance)
  assert exact_delta(epsilon, distance / sigma) <= delta
  assert exact_delta(epsilon, distance / (sigma * (1 - 1e-8))) > delta


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
    (lambda: calibrate.gaussian_epsilon(2, 1, 1), "delta is 2"),
    (lambda: calibrate.classical_sigma(1.1, 1e-5, 1), "epsilon is 1.1"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
