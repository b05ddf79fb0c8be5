"""Flags of certified releases, and what they promise."""

from pathlib import Path
from typing import NamedTuple

from absl import flags

from junlearn.certify import calibrate, signing
from junlearn.certify.accountant import Account
from junlearn.certify.release import MAX_EPSILON

_EPSILON = flags.DEFINE_float(
  "epsilon",
  1.0,
  "Budget of all releases of the run together. Another run on the same data "
  "spends its own on top.",
)
_DELTA = flags.DEFINE_float(
  "delta", 1e-5, "Delta of the budget, as for --epsilon."
)
_PLANNED = flags.DEFINE_integer(
  "planned_releases",
  None,
  "Releases to divide the budget among (default: all that the run makes).",
  lower_bound=1,
)
_MAX_DISTANCE = flags.DEFINE_float(
  "max_distance", 1e-3, "To retraining, at most, before a release."
)
_FALLBACK = flags.DEFINE_enum(
  "fallback",
  "none",
  ["none", "retrain"],
  "What to release where the distance is not reached: nothing, or a retrained "
  "model with the same noise.",
)
_SIGNING_KEY = flags.DEFINE_string(
  "signing_key",
  None,
  "File of the Ed25519 key that signs the ledger, as openssl genpkey writes it "
  "(default: one that the run makes and keeps in its folder).",
)


class Terms(NamedTuple):
  """What the releases of a run promise.

  Attributes:
    epsilon: of all releases together.
    delta: the same.
    planned: releases among which the budget is divided.
    max_distance: to retraining, of each, before its noise.
    retrain: whether to retrain where it is not reached.
    signing_key: file, or None for the run's own.
  """

  epsilon: float
  delta: float
  planned: int
  max_distance: float
  retrain: bool
  signing_key: str | None

  @property
  def each(self) -> float:
    """The epsilon of one release, fixed before any data are seen."""
    budget = Account(self.epsilon, self.delta)
    sigma = budget.sigma(1.0, releases=self.planned)
    return calibrate.gaussian_epsilon(self.delta, 1.0, sigma)


def from_flags(releases: int) -> Terms:
  """What the flags say, for a run of so many releases.

  Raises:
    ValueError: naming a flag that is out of range.
  """
  for flag, most, allowed in (
    (_EPSILON, MAX_EPSILON, f"above 0 and at most {MAX_EPSILON:g}"),
    (_DELTA, 1 - 1e-9, "above 0 and below 1"),
    (_MAX_DISTANCE, 1e100, "finite and above 0"),
  ):
    if not 0 < flag.value <= most:
      raise ValueError(f"--{flag.name}={flag.value}; it must be {allowed}.")
  if _SIGNING_KEY.value is not None:
    try:
      signing.load_key(Path(_SIGNING_KEY.value).read_bytes())
    except (OSError, ValueError) as error:
      raise ValueError(f"--{_SIGNING_KEY.name}: {error}") from error
  if _PLANNED.value is not None and _PLANNED.value < releases:
    raise ValueError(
      f"--{_PLANNED.name}={_PLANNED.value}; it must be at least {releases}: "
      "the run makes one release for each seed, method and request."
    )
  return Terms(
    epsilon=_EPSILON.value,
    delta=_DELTA.value,
    planned=_PLANNED.value or max(releases, 1),
    max_distance=_MAX_DISTANCE.value,
    retrain=_FALLBACK.value == "retrain",
    signing_key=_SIGNING_KEY.value,
  )
