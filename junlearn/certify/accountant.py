"""How much of a budget successive releases have spent.

Every release is a Gaussian `N(w, sigma^2 I)` whose mean is at most `Delta` from
that of a retrained model's release. Releases compose exactly,

    mu^2 = sum_k (Delta_k / sigma_k)^2,  delta = gaussian_delta(epsilon, mu, 1),

also where later requests depend on earlier releases (`certify`, lemma 7). So
the formula is all that is needed: general accountants, such as dp-accounting,
approximate the same number for mechanisms that have none.
"""

import functools
import math
from typing import NamedTuple

from junlearn import validate
from junlearn.certify.calibrate import gaussian_epsilon, gaussian_sigma


class BudgetError(ArithmeticError):
  """A release would exceed the budget; the answer is to retrain."""


class Release(NamedTuple):
  """One noisy release.

  Attributes:
    distance: `Delta`, above 0, the retrain error included.
    sigma: standard deviation of its noise, above 0.
  """

  distance: float
  sigma: float


class Account(NamedTuple):
  """A budget for all releases together, and the releases made.

  It is a privacy filter: requests, distances and sigmas may depend on what was
  released before, as long as every release passes `add` and the budget is that
  of the start (`certify`, lemma 7). A budget begun anew, or enlarged, after a
  look at a release is not covered.

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
    whole = _largest(self.epsilon, self.delta)
    part = self.spent / whole
    return whole * math.sqrt(max((1 - part) * (1 + part), 0.0))

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
    validate.positive(distance=distance)
    validate.at_least(1, releases=releases)
    left = self.left
    if not left > 0:
      raise BudgetError(
        f"the budget of epsilon {self.epsilon} at delta {self.delta} is spent "
        f"after {_count(self.releases)}: retrain now."
      )
    # Rounded up by more than `calibrate` rounds: they still fit when each goes
    # through `gaussian_epsilon` and back.
    sigma = float(distance) / left * math.sqrt(releases) * (1 + 1e-7)
    if not 0 < sigma < math.inf:
      raise ValueError(
        f"distance is {distance}; with {left} left for distance / sigma it "
        f"must have a sigma within double precision, not {sigma}."
      )
    return sigma

  def add(self, distance: float, sigma: float) -> "Account":
    """The account after one more release; every release is charged.

    Args:
      distance: `Delta`, above 0; a retrained model stands within it too.
      sigma: above 0.

    Raises:
      BudgetError: if the release does not fit; it must not be made then.
      ValueError: if an argument is out of range.
    """
    validate.positive(distance=distance, sigma=sigma)
    release = Release(float(distance), float(sigma))
    after = self._replace(releases=(*self.releases, release))
    # Half of what `gaussian_sigma` rounds up: one release at its sigma fits.
    if not after.spent <= _largest(self.epsilon, self.delta) * (1 + 5e-10):
      raise BudgetError(
        f"distance {distance} at sigma {sigma} has a distance / sigma of "
        f"{release.distance / release.sigma}; the budget of epsilon "
        f"{self.epsilon} at delta {self.delta} leaves {self.left} after "
        f"{_count(self.releases)}: retrain now."
      )
    return after


@functools.lru_cache(maxsize=16)
def _largest(epsilon: float, delta: float) -> float:
  """The `mu` of the whole budget."""
  return 1 / gaussian_sigma(epsilon, delta, 1.0)


def _count(releases):
  count = len(releases)
  return f"{count or 'no'} release{'' if count == 1 else 's'}"
