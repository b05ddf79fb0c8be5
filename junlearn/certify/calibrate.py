"""The Gaussian mechanism, exactly: noise for a distance, on the host.

Two releases `N(w, sigma^2 I)` and `N(w', sigma^2 I)` with `|w - w'| <= Delta`
are `(epsilon, delta)`-indistinguishable if and only if, with
`mu = Delta / sigma`,

    delta >= Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).

B. Balle, Y.-X. Wang, "Improving the Gaussian Mechanism for Differential
Privacy", arXiv 1805.06530, theorem 8.
"""

import math
from collections.abc import Callable

from scipy import special

# Far above the rounding of `_log_delta`, far below what a user can notice.
_MARGIN = 1e-9


def gaussian_delta(epsilon: float, distance: float, sigma: float) -> float:
  """Smallest `delta` at which two Gaussians are indistinguishable.

  Args:
    epsilon: at least 0.
    distance: `Delta`, between the means, at least 0.
    sigma: standard deviation of each coordinate, above 0.

  Returns:
    `delta` in [0, 1], with a relative error below 1e-9 where
    `distance / sigma` is at least 1e-5.

  Raises:
    ValueError: if an argument is out of range.
  """
  _check(epsilon=(epsilon, 0 <= epsilon < math.inf, "at least 0"))
  _check_distance(distance, distance >= 0, "at least 0")
  _check_sigma(sigma)
  return math.exp(_log_delta(epsilon, distance / sigma))


def gaussian_epsilon(delta: float, distance: float, sigma: float) -> float:
  """Smallest `epsilon >= 0` with `gaussian_delta(epsilon, ...) <= delta`.

  The result is rounded up, by at most a relative 1e-8. Arguments as above.

  Raises:
    ValueError: if an argument is out of range.
  """
  _check_delta(delta)
  _check_distance(distance, distance >= 0, "at least 0")
  _check_sigma(sigma)
  mu = distance / sigma

  def holds(epsilon):
    return _log_delta(epsilon, mu) <= math.log(delta)

  return 0.0 if holds(0.0) else _smallest(holds) * (1 + _MARGIN)


def gaussian_sigma(epsilon: float, delta: float, distance: float) -> float:
  """Smallest `sigma` with `gaussian_delta(epsilon, distance, sigma) <= delta`.

  Args:
    epsilon: above 0.
    delta: in (0, 1).
    distance: `Delta`, above 0.

  Returns:
    `sigma`, proportional to `distance` and rounded up by at most a relative
    1e-8.

  Raises:
    ValueError: if an argument is out of range.

  **Guarantees**: the exact `delta` of the result is at most `delta`, rounding
  of this function included.
  """
  _check_positive_epsilon(epsilon)
  _check_delta(delta)
  _check_distance(distance, distance > 0, "above 0")

  def holds(sigma):
    return _log_delta(epsilon, 1 / sigma) <= math.log(delta)

  return distance * _smallest(holds) * (1 + _MARGIN)


def classical_sigma(epsilon: float, delta: float, distance: float) -> float:
  """The textbook `sigma = Delta sqrt(2 ln(1.25 / delta)) / epsilon`.

  Sufficient for `epsilon <= 1` only, and larger than `gaussian_sigma`.

  Source: C. Dwork, A. Roth, "The Algorithmic Foundations of Differential
  Privacy", theorem A.1.

  Raises:
    ValueError: if an argument is out of range.
  """
  _check(epsilon=(epsilon, 0 < epsilon <= 1, "in (0, 1]"))
  _check_delta(delta)
  _check_distance(distance, distance > 0, "above 0")
  return distance * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def _log_delta(epsilon: float, mu: float) -> float:
  """Logarithm of the exact delta; increasing in mu, decreasing in epsilon.

  Both terms share the density at `a`: with `Phi(-t) = phi(t) R(t)` and
  `e^epsilon phi(b) = phi(a)`,  delta = phi(a) (R(-a) - R(-b)),
  so that neither `e^epsilon` overflows nor small tails vanish.
  """
  if mu == 0:
    return -math.inf
  a = mu / 2 - epsilon / mu
  b = -mu / 2 - epsilon / mu
  if math.isinf(a):  # epsilon / mu overflows: the tail is zero
    return -math.inf
  scaled_tail = special.erfcx(-b / math.sqrt(2)) / 2
  if a > 0:
    value = special.ndtr(a) - math.exp(-a * a / 2) * scaled_tail
    exponent = 0.0
  else:
    value = special.erfcx(-a / math.sqrt(2)) / 2 - scaled_tail
    exponent = -a * a / 2
  return exponent + math.log(value) if value > 0 else -math.inf


def _smallest(holds: Callable[[float], bool]) -> float:
  """Smallest positive number at which a monotone condition holds.

  Bisection on the exponent, down to neighbouring floats; the end returned is
  the one at which the condition was seen to hold.
  """
  high = 1.0
  while not holds(high):
    high *= 2
  low = high / 2
  while holds(low):
    low, high = low / 2, low
  while True:
    middle = (low + high) / 2
    if middle in (low, high):
      return high
    if holds(middle):
      high = middle
    else:
      low = middle


def _check_positive_epsilon(epsilon):
  _check(epsilon=(epsilon, 0 < epsilon < math.inf, "above 0"))


def _check_delta(delta):
  _check(delta=(delta, 0 < delta < 1, "in (0, 1)"))


def _check_distance(distance, holds, allowed):
  _check(distance=(distance, holds and distance < math.inf, allowed))


def _check_sigma(sigma):
  _check(sigma=(sigma, 0 < sigma < math.inf, "above 0"))


def _check(**arguments):
  for name, (value, holds, allowed) in arguments.items():
    if not holds:
      raise ValueError(f"{name} is {value}; it must be finite and {allowed}.")
