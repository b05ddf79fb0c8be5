"""The record of one certified release, which others can check.

A certificate holds every number that the noise was computed from, so that
`disagreements` can compute it again, and fingerprints of what cannot be shown.
It never holds the key of the noise, nor anything that leads to it.

It is for whoever audits the deletion. Measured numbers (residual, steps) depend
on the deleted records, so that the guarantee, which covers the released params,
does not cover the certificate: it is not published beside the model.
"""

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import NamedTuple, get_args

from junlearn.certify import strict
from junlearn.certify.calibrate import gaussian_sigma
from junlearn.certify.certified import Mode
from junlearn.certify.derived import (
  Derived,
  Head,
  check_distance,
  check_head,
  same,
)

SCHEMA = 1

_PACKAGES = ("flax", "jax", "jaxlib", "numpy", "scipy")


class Hashes(NamedTuple):
  """SHA-256 in hexadecimal.

  Attributes:
    config: of the bytes of `config.json`.
    forget_ids: `fingerprint.record_set` of the records deleted.
    retain_ids: the same of those kept.
    params_before: `fingerprint.params` of the params before the deletion.
    params_after: `tree.digest` of the released params.
  """

  config: str
  forget_ids: str
  retain_ids: str
  params_before: str
  params_after: str


class Certificate(NamedTuple):
  """One release.

  Attributes:
    schema: version of this class.
    experiment: what made it, as `experiments.verify_certificate` knows it.
    certified: False in mode `reported`, which is no certificate.
    mode: as in `certified.certified`.
    epsilon: above 0.
    delta: in (0, 1).
    max_distance: public bound on the distance; None in mode `reported`.
    comparator: distance of the retrained model to its own optimum.
    sigma: standard deviation of the noise.
    noise_dimensions: independent numbers drawn.
    measured: the bound on the distance that was measured (`derive`).
    public: the theorem behind `max_distance`; None but in mode `worst_case`.
    head: the constants of the model (`head_of`); None where no theorem reads
      them.
    assumptions: what must be true besides, a sentence each.
    iterations: steps taken until the bound was met.
    hashes: of data, configuration and params.
    seeds: fingerprints by name, of data and initialisation.
    versions: of Python and the libraries.
  """

  schema: int
  experiment: str
  certified: bool
  mode: str
  epsilon: float
  delta: float
  max_distance: float | None
  comparator: float
  sigma: float
  noise_dimensions: int
  measured: Derived
  public: Derived | None
  head: Head | None
  assumptions: tuple[str, ...]
  iterations: int
  hashes: Hashes
  seeds: dict[str, str]
  versions: dict[str, str]

  @property
  def distance(self) -> float:
    """What the noise hides: the bound used, and the comparator's part."""
    used = self.max_distance
    return (self.measured.result if used is None else used) + self.comparator


def issue(
  *,
  experiment: str,
  mode: Mode,
  epsilon: float,
  delta: float,
  max_distance: float | None,
  comparator: float,
  noise_dimensions: int,
  measured: Derived,
  public: Derived | None = None,
  head: Head | None = None,
  assumptions: Sequence[str],
  iterations: int,
  hashes: Hashes,
  seeds: Mapping[str, str],
) -> Certificate:
  """The certificate of a release that `certified` made; see `Certificate`.

  Raises:
    ValueError: if the numbers do not make a release, such as a measured
      distance above `max_distance`.
  """
  limit = measured.result if max_distance is None else max_distance
  issued = Certificate(
    schema=SCHEMA,
    experiment=experiment,
    certified=mode != "reported",
    mode=mode,
    epsilon=epsilon,
    delta=delta,
    max_distance=max_distance,
    comparator=comparator,
    sigma=gaussian_sigma(epsilon, delta, limit + comparator),
    noise_dimensions=noise_dimensions,
    measured=measured,
    public=public,
    head=head,
    assumptions=tuple(assumptions),
    iterations=iterations,
    hashes=hashes,
    seeds=dict(seeds),
    versions={
      "python": platform.python_version(),
      **{package: metadata.version(package) for package in _PACKAGES},
    },
  )
  for problem in disagreements(issued):
    raise ValueError(f"issue: {problem}")
  return issued


def to_json(certificate: Certificate) -> str:
  """The content of `certificate.json`.

  Raises:
    ValueError: if a number is not finite.
  """
  return strict.encode(certificate, indent=2) + "\n"


def from_json(text: str) -> Certificate:
  """What `to_json` wrote; nothing else is accepted.

  Raises:
    ValueError: naming the field.
  """
  if not text.endswith("\n"):
    raise ValueError("the last line is cut short")
  return strict.decode(Certificate, text[:-1], indent=2)


def sha256(text: str) -> str:
  """What a ledger knows a certificate by, from its JSON."""
  return hashlib.sha256(text.encode()).hexdigest()


def disagreements(certificate: Certificate) -> Iterator[str]:
  """Computes every number again that others determine.

  Yields:
    A sentence for each field that is not what it must be; it begins with the
    field's name.
  """
  c = certificate
  if c.schema != SCHEMA:
    yield f"schema is {c.schema}; this program reads {SCHEMA}."
    return
  yield from check_distance("measured", c.measured, c.head)
  if c.public is not None:
    yield from check_distance("public", c.public, c.head)
  if c.head is not None:
    yield from check_head(c.head)
  yield from _mode(c)
  try:
    sigma = gaussian_sigma(c.epsilon, c.delta, c.distance)
  except ValueError as error:
    yield f"sigma cannot be computed: {error}"
  else:
    yield from same("sigma", c.sigma, sigma)
  if c.noise_dimensions < 1:
    yield f"noise_dimensions is {c.noise_dimensions}; it must be at least 1."
  if c.comparator < 0:
    yield f"comparator is {c.comparator}; it must be at least 0."
  if not c.assumptions:
    yield "assumptions is empty; what a certificate rests on must be said."
  if c.iterations < 0:
    yield f"iterations is {c.iterations}; it must be at least 0."
  for name, value in c.hashes._asdict().items():
    yield from _hexadecimal(f"hashes.{name}", value)
  for name, value in c.seeds.items():
    yield from _hexadecimal(f"seeds.{name}", value)
    if "noise" in name:
      yield f"seeds.{name} may lead to the noise; it must not be kept."


def _mode(c):
  reported = c.mode == "reported"
  if c.mode not in get_args(Mode):
    yield f"mode is {c.mode!r}; there is none of this name."
  if c.certified == reported:
    yield f"certified is {c.certified}; mode {c.mode!r} says {not reported}."
  if (c.max_distance is None) != reported:
    yield f"max_distance is {c.max_distance}, in mode {c.mode!r}."
  elif not reported and not 0 <= c.measured.result <= c.max_distance:
    yield (
      f"measured.result is {c.measured.result}; it must be at most "
      f"max_distance, {c.max_distance}."
    )
  if (c.public is not None) != (c.mode == "worst_case"):
    yield "public must be there in mode 'worst_case', and only there."
  elif c.public is not None and c.max_distance is not None:
    yield from same("max_distance", c.max_distance, c.public.result)


def _hexadecimal(path, value):
  if len(value) != 64 or set(value) - set("0123456789abcdef"):
    yield f"{path} is {value!r}; it must be 64 hexadecimal digits."
