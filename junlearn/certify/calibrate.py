"""The Gaussian mechanism, exactly: noise for a distance, on the host.

Two releases `N(w, sigma^2 I)` and `N(w', sigma^2 I)` with `|w - w'| <= Delta`
are `(epsilon, delta)`-indistinguishable if and only if, with
`mu = Delta / sigma`,

    delta >= Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).

B. Balle, Y.-X. Wang, "Improving the Gaussian Mechanism for Differential
Privacy", arXiv 1805.06530, theorem 8.
"""

import math
import struct
import sys
from collections.abc import Callable

import numpy as np
from scipy import special

from junlearn import validate

# Relative, of `mu`: far above the rounding of `_log_delta`, far below what a
# user can notice.
_MARGIN = 1e-9
# The Gaussian density that far out, and hence delta, is below every double.
_FAR = 39.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)


def gaussian_delta(epsilon: float, distance: float, sigma: float) -> float:
  """Smallest `delta` at which two Gaussians are indistinguishable.

  Args:
    epsilon: at least 0.
    distance: `Delta`, between the means, at least 0.
    sigma: standard deviation of each coordinate, above 0.

  Returns:
    `delta` in [0, 1], with a relative error below 1e-10 where it is above
    1e-300 and `distance / sigma` at most 60; 1 where `distance / sigma`
    overflows.

  Raises:
    ValueError: if an argument is out of range.
  """
  validate.at_least(0, epsilon=epsilon, distance=distance)
  validate.positive(sigma=sigma)
  return math.exp(_log_delta(epsilon, float(distance) / float(sigma)))


def gaussian_epsilon(delta: float, distance: float, sigma: float) -> float:
  """Smallest `epsilon >= 0` with `gaussian_delta(epsilon, ...) <= delta`.

  Arguments as above, `delta` in (0, 1).

  Returns:
    `epsilon`, rounded up to that of a `distance` larger by a relative 5e-10;
    infinity where it would exceed the largest number.

  Raises:
    ValueError: if an argument is out of range.

  **Guarantees**: the exact `delta` at the result is at most `delta`, rounding
  of this function included.
  """
  validate.within("(0, 1)", delta=delta)
  validate.at_least(0, distance=distance)
  validate.positive(sigma=sigma)
  # Half of the margin of `gaussian_sigma`: its sigma has at most its epsilon.
  mu = float(distance) / float(sigma) * (1 + _MARGIN / 2)

  def holds(epsilon):
    return _log_delta(epsilon, mu) <= math.log(delta)

  return 0.0 if holds(0.0) else _smallest(holds)


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
    ValueError: if an argument is out of range, or `sigma` would be: too large
      or too small for double precision.

  **Guarantees**: the exact `delta` of the result is at most `delta`, rounding
  of this function included.
  """
  validate.positive(epsilon=epsilon, distance=distance)
  validate.within("(0, 1)", delta=delta)

  def holds(sigma):
    return _log_delta(epsilon, 1 / sigma) <= math.log(delta)

  return _scaled(_smallest(holds) * (1 + _MARGIN), epsilon, delta, distance)


def classical_sigma(epsilon: float, delta: float, distance: float) -> float:
  """The textbook `sigma = Delta sqrt(2 ln(1.25 / delta)) / epsilon`.

  Sufficient for `epsilon <= 1` only, and larger than `gaussian_sigma`.

  Source: C. Dwork, A. Roth, "The Algorithmic Foundations of Differential
  Privacy", theorem A.1.

  Raises:
    ValueError: if an argument or `sigma` is out of range, as above.
  """
  validate.within("(0, 1]", epsilon=epsilon)
  validate.within("(0, 1)", delta=delta)
  validate.positive(distance=distance)
  factor = math.sqrt(2 * (math.log(1.25) - math.log(delta)))
  return _scaled(factor / float(epsilon), epsilon, delta, distance)


def _log_delta(epsilon: float, mu: float) -> float:
  """Logarithm of the exact delta; increasing in mu, decreasing in epsilon.

  With `a` and `b` the formula's two arguments, and `R` as in `_mills`, both of
  its terms share the density at `a`:  `e^epsilon phi(b) = phi(a)`, hence

    delta = phi(a) (R(-a) - R(-b)),  1 - delta = phi(a) (R(a) + R(-b)),

  so that neither `e^epsilon` overflows nor small tails vanish. Where `mu` is
  small the difference would cancel; since `R'(x) = x R(x) - 1`, it is

    R(-a) - R(-b) = integral of 1 - x R(x) over x from -a to mu - a,

  of a positive, smooth function: ten nodes give it to rounding for `mu <= 1`.
  """
  if mu == 0:
    return -math.inf
  if not mu < math.inf:  # nothing is known of it: no privacy
    return 0.0
  tail = float(epsilon) / mu
  a = mu / 2 - tail
  if a < -_FAR:
    return -math.inf
  log_density = -a * a / 2 - math.log(2 * math.pi) / 2
  if mu < 1:
    x = tail + mu / 2 * _NODES
    mean = _WEIGHTS @ (1 - x * _mills(x)) / 2
    return log_density + math.log(mu) + math.log(mean)
  below = _mills(mu / 2 + tail)
  if a > 0:
    return math.log1p(-math.exp(log_density) * (_mills(a) + below))
  return log_density + math.log(_mills(-a) - below)


def _mills(x):
  """`R(x) = Phi(-x) / phi(x)`."""
  return math.sqrt(math.pi / 2) * special.erfcx(x / math.sqrt(2))


def _smallest(holds: Callable[[float], bool]) -> float:
  """Smallest positive number at which a monotone condition holds.

  Bisection between neighboring floats, over their bits, which have the order
  of the positive floats: 63 steps, whatever the size. Infinity if it holds at
  no finite number.
  """
  low, high = 0, struct.unpack("q", struct.pack("d", math.inf))[0]
  while high - low > 1:
    middle = (low + high) // 2
    if holds(_float(middle)):
      high = middle
    else:
      low = middle
  return _float(high)


def _float(bits):
  return struct.unpack("d", struct.pack("q", bits))[0]


def _scaled(factor, epsilon, delta, distance):
  sigma = float(distance) * factor
  if not sys.float_info.min <= sigma < math.inf:
    raise ValueError(
      f"distance is {distance}; at epsilon {epsilon} and delta {delta} it must "
      f"have a sigma within double precision, not {sigma}."
    )
  return sigma
