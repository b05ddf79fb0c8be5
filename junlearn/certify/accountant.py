"""How much of a budget successive releases have spent.

Every release is a Gaussian `N(w, sigma^2 I)` whose mean the comparator's is at
most `Delta` away from. Releases compose exactly,

    mu^2 = sum_k (Delta_k / sigma_k)^2,  delta = gaussian_delta(epsilon, mu, 1),

also where later requests depend on earlier releases (J. Dong, A. Roth, W. J.
Su, "Gaussian Differential Privacy", arXiv 1905.02383, section 3). So the
formula is all that is needed: general accountants, such as dp-accounting,
approximate the same number for mechanisms that have none.
"""

import functools
import math
from typing import NamedTuple

from junlearn.certify.calibrate import gaussian_epsilon, gaussian_sigma


class BudgetError(ArithmeticError):
  """A release would exceed the budget; the answer is to retrain."""


class Release(NamedTuple):
  """One noisy release.

  Attributes:
    distance: `Delta`, the comparator's part included; 0 for a retrained model.
    sigma: standard deviation of its noise.
  """

  distance: float
  sigma: float


class Account(NamedTuple):
  """A budget for all releases together, and the releases made.

  Attributes:
    epsilon: above 0.
    delta: in (0, 1).
    releases: oldest first; `add` appends to them.

  **Guarantees**: the joint answer to all requests is
  `(epsilon, delta)`-indistinguishable from the same mechanism on models
  retrained after each. Assumes that each release has noise of its own and that
  its `distance` holds for its request whatever was released before, hence that
  later requests start from models without noise.
  """

  epsilon: float
  delta: float
  releases: tuple[Release, ...] = ()

  @property
  def spent(self) -> float:
    """`mu`, the root of the releases' squared `distance / sigma`."""
    return math.hypot(*(each.distance / each.sigma for each in self.releases))

  @property
  def left(self) -> float:
    """The largest `distance / sigma` of one more release; 0 where spent.

    Raises:
      ValueError: if `epsilon` or `delta` is out of range.
    """
    return math.sqrt(
      max(_largest(self.epsilon, self.delta) ** 2 - self.spent**2, 0.0)
    )

  @property
  def spent_epsilon(self) -> float:
    """The `epsilon` that the releases have together, at the budget's `delta`.

    Raises:
      ValueError: if `delta` is out of range.
    """
    return gaussian_epsilon(self.delta, self.spent, 1.0)

  def sigma(self, distance: float, *, releases: int = 1) -> float:
    """Noise at which that many more releases fit, all at one distance.

    `gaussian_epsilon(delta, distance, sigma)` is the `epsilon` to give to
    `certified` for each of them.

    Args:
      distance: `Delta` of each, above 0.
      releases: how many, at least 1.

    Raises:
      BudgetError: if nothing is left.
      ValueError: if an argument is out of range.
    """
    if not 0 < distance < math.inf:
      raise ValueError(f"distance is {distance}; it must be above 0.")
    if releases < 1:
      raise ValueError(f"releases is {releases}; it must be at least 1.")
    left = self.left
    if left == 0:
      raise BudgetError(self._refusal())
    # Rounded up by more than `calibrate` rounds: they still fit when each goes
    # through `gaussian_epsilon` and back.
    return distance * math.sqrt(releases) / left * (1 + 1e-7)

  def add(self, distance: float, sigma: float) -> "Account":
    """The account after one more release.

    Args:
      distance: `Delta`, at least 0.
      sigma: above 0.

    Raises:
      BudgetError: if the release does not fit; it must not be made then.
      ValueError: if an argument is out of range.
    """
    if not 0 <= distance < math.inf:
      raise ValueError(f"distance is {distance}; it must be at least 0.")
    if not 0 < sigma < math.inf:
      raise ValueError(f"sigma is {sigma}; it must be above 0.")
    releases = (*self.releases, Release(distance, sigma))
    after = self._replace(releases=releases)
    # Half of what `gaussian_sigma` rounds up: one release at its sigma fits.
    if after.spent > _largest(self.epsilon, self.delta) * (1 + 5e-10):
      raise BudgetError(self._refusal())
    return after

  def _refusal(self) -> str:
    return (
      f"the budget of epsilon {self.epsilon} at delta {self.delta} is spent "
      f"after {len(self.releases)} releases (epsilon "
      f"{self.spent_epsilon:.4g}): retrain now."
    )


@functools.lru_cache(maxsize=16)
def _largest(epsilon: float, delta: float) -> float:
  """The `mu` of the whole budget."""
  return 1 / gaussian_sigma(epsilon, delta, 1.0)
