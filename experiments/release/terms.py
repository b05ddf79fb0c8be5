"""What the certified releases of a run promise; a field is a flag."""

from pathlib import Path
from typing import Annotated, NamedTuple

from experiments.run import options
from experiments.run.options import Flag
from junlearn.certify import calibrate, signing
from junlearn.certify.accountant import Account
from junlearn.certify.release import MAX_EPSILON


class Terms(NamedTuple):
  """What a run releases, and what that promises."""

  requests: Annotated[
    int,
    Flag(
      "Successive requests that what is to be forgotten is divided into; each "
      "is answered by a release of its own.",
      least=1,
    ),
  ] = 1
  epsilon: Annotated[
    float,
    Flag(
      "Budget of all releases of the run together. Another run on the same "
      "data spends its own on top."
    ),
  ] = 1.0
  delta: Annotated[
    float, Flag("Delta of the budget of all releases of the run together.")
  ] = 1e-5
  planned_releases: Annotated[
    int | None,
    Flag(
      "Releases to divide the budget among (default: all that the run makes).",
      least=1,
    ),
  ] = None
  max_distance: Annotated[
    float,
    Flag("Largest distance to retraining at which params are released."),
  ] = 1e-3
  fallback: Annotated[
    str,
    Flag(
      "What to release where the distance is not reached: nothing, or a "
      "retrained model with the same noise.",
      choices=("none", "retrain"),
    ),
  ] = "none"
  signing_key: Annotated[
    str | None,
    Flag(
      "File of the Ed25519 key that signs the ledger, as openssl genpkey "
      "writes it (default: one that the run makes and keeps in its folder)."
    ),
  ] = None

  @property
  def sigma(self) -> float:
    """The noise of one release whose distance is 1.

    It is fixed before any data are seen.
    """
    releases = self.planned_releases or 1
    return Account(self.epsilon, self.delta).sigma(1.0, releases=releases)

  @property
  def each(self) -> float:
    """The epsilon of one release."""
    return calibrate.gaussian_epsilon(self.delta, 1.0, self.sigma)


FLAGS = options.define(Terms)


def promised(releases: int) -> Terms:
  """What the flags promise, in a run of so many releases.

  Raises:
    ValueError: naming a flag that is out of range.
  """
  terms = FLAGS.value
  for name, most, allowed in (
    ("epsilon", MAX_EPSILON, f"above 0 and at most {MAX_EPSILON:g}"),
    ("delta", 1 - 1e-9, "above 0 and below 1"),
    ("max_distance", 1e100, "finite and above 0"),
  ):
    value = getattr(terms, name)
    if not 0 < value <= most:
      raise ValueError(f"--{name}={value}; it must be {allowed}.")
  if terms.signing_key is not None:
    try:
      signing.load_key(Path(terms.signing_key).read_bytes())
    except (OSError, ValueError) as error:
      raise ValueError(f"--signing_key: {error}") from error
  planned = terms.planned_releases or max(releases, 1)
  if planned < releases:
    raise ValueError(
      f"--planned_releases={planned}; it must be at least {releases}: the run "
      "makes one release for each seed, method and request."
    )
  return terms._replace(planned_releases=planned)


def target(max_distance: float) -> float:
  """The distance at which a correction may stop.

  Half of the largest one: a bound has an allowance for rounding, too.
  """
  return max_distance / 2
