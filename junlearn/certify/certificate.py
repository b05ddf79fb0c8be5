"""The record of one certified release, which others can check.

A certificate holds every number that the noise was computed from, so that
`disagreements` can compute it again, and fingerprints of what cannot be shown.
Whoever has the data and the params without noise makes it anew and compares
(`verify`).

It is for whoever audits the deletion. Measured numbers depend on the deleted
records, so that the guarantee, which covers the released params, does not cover
the certificate: it is not published beside the model.
"""

import hashlib
import math
import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import NamedTuple, get_args

from junlearn import tree
from junlearn.certify import (
  calibrate,
  fingerprint,
  noise,
  premises,
  scrutiny,
  strict,
)
from junlearn.certify.derived import (
  Derived,
  Head,
  check_a_priori,
  check_distance,
  check_head,
  same,
)
from junlearn.certify.release import Bound, Release, describe
from junlearn.transform import Request
from junlearn.typing import Params

SCHEMA = 3

_PACKAGES = ("flax", "jax", "jaxlib", "numpy", "scipy")
# Other machines sum in another order.
_RELATIVE = 1e-6
# Measured numbers that rounding may move by this other measured number.
_ERRORS = {
  "measured.arguments.gradient_norm": "gradient_error",
  "measured.arguments.residual_norm": "residual_error",
}


class Hashes(NamedTuple):
  """SHA-256 in hexadecimal.

  Attributes:
    config: of the configuration: of the bytes of `config.json`, in experiments.
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
    release: its name, which the ledger has as `request`.
    epsilon: of this release alone, above 0.
    delta: in (0, 1).
    max_distance: public bound on the distance.
    retrain_error: distance of the retrained model to its own optimum.
    rounding: what rounding both models to the grid adds.
    sigma: standard deviation of the noise.
    grid: all released parameters are multiples of this power of two.
    norm: "joint" or "row", see `certified.Bound`.
    noise_dimensions: independent draws of noise.
    measured: the bound on the distance that was measured.
    limit: the a-priori theorem that `max_distance` was taken from; None where
      it was chosen. What was measured is held to the number alone, so that
      nothing rests on the theorem.
    head: the constants of the model; None where no theorem reads them.
    fallback: whether the params were retrained, since the correction did not
      come near enough.
    checked: assumptions that a program has checked, a sentence each.
    stated: assumptions that none can check, in the words of whoever vouches
      for them.
    hashes: of data, configuration and params.
    seeds: fingerprints by name, of data and initialization.
    versions: of Python and the libraries.
  """

  schema: int
  experiment: str
  release: str
  epsilon: float
  delta: float
  max_distance: float
  retrain_error: float
  rounding: float
  sigma: float
  grid: float
  norm: str
  noise_dimensions: int
  measured: Derived
  limit: Derived | None
  head: Head | None
  fallback: bool
  checked: dict[str, str]
  stated: dict[str, str]
  hashes: Hashes
  seeds: dict[str, str]
  versions: dict[str, str]

  @property
  def distance(self) -> float:
    """What the noise hides: the bound, the retrain error and rounding."""
    return self.max_distance + self.retrain_error + self.rounding


def issue(
  release: Release,
  bound: Bound,
  request: Request,
  *,
  experiment: str,
  name: str,
  before: Params,
  released: Params,
  salt: bytes,
  config: bytes,
  seeds: Mapping[str, str],
) -> Certificate:
  """The certificate of a release that `certified` made.

  Args:
    release: the info of `certified`, or what `certified.describe` finds.
    bound: that it was made with.
    request: that it answers.
    experiment: what made it.
    name: of the release.
    before: params before the deletion.
    released: params with noise.
    salt: of the fingerprints (`fingerprint.new_salt`).
    config: the flags of the run, whose hash is kept.
    seeds: fingerprints by name.

  Raises:
    ValueError: if the numbers do not make a release, such as a measured
      distance above `max_distance`.
  """

  def ids(examples):
    found = premises.present_ids(examples, axes=bound.axes)
    return fingerprint.record_set(found, salt=salt)

  terms = release._asdict()
  issued = Certificate(
    schema=SCHEMA,
    experiment=experiment,
    release=name,
    retrain_error=float(bound.retrain_error),
    norm=bound.norm,
    head=bound.head,
    stated=dict(bound.stated),
    hashes=Hashes(
      config=hashlib.sha256(config).hexdigest(),
      forget_ids=ids(request.forget),
      retain_ids=ids(request.retain),
      params_before=fingerprint.params(before, salt=salt),
      params_after=tree.digest(released),
    ),
    seeds=dict(seeds),
    versions={
      "python": platform.python_version(),
      **{package: metadata.version(package) for package in _PACKAGES},
    },
    **terms,
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
  try:
    return strict.decode(Certificate, text[:-1], indent=2)
  except ValueError as error:
    schema = re.match(r'\{\n  "schema": (\d+),\n', text)
    if schema is None or int(schema[1]) == SCHEMA:
      raise
    # It has other fields: its number says more than the first that is missing.
    raise ValueError(
      f"schema is {schema[1]}; this program reads {SCHEMA}"
    ) from error


def sha256(text: str) -> str:
  """What a ledger knows a certificate by, from its JSON."""
  return hashlib.sha256(text.encode()).hexdigest()


def verify(
  stored: Certificate,
  bound: Bound,
  request: Request,
  *,
  before: Params,
  corrected: Params,
  released: Params,
  salt: bytes,
  config: bytes,
  seeds: Mapping[str, str],
) -> Iterator[str]:
  """Makes a certificate anew and compares, and tries the noise.

  Epsilon, delta and the distance promised are the certificate's own: whether
  these are what was agreed on, its reader must say.

  Args:
    stored: the certificate.
    bound: as whoever verifies would make it.
    request: the same.
    before: params before the deletion.
    corrected: params after it, without noise.
    released: params with noise.
    salt: as in `issue`.
    config: the same.
    seeds: the same.

  Yields:
    A sentence for each disagreement.

  Raises:
    ValueError: if an assumption of the bound does not hold.
    NotReachedError: if the bound is above the certificate's distance.
  """
  yield from disagreements(stored)
  release = describe(
    bound,
    corrected,
    request,
    epsilon=stored.epsilon,
    delta=stored.delta,
    max_distance=stored.limit or stored.max_distance,
    fallback=stored.fallback,
  )
  again = issue(
    release,
    bound,
    request,
    experiment=stored.experiment,
    name=stored.release,
    before=before,
    released=released,
    salt=salt,
    config=config,
    seeds=seeds,
  )
  yield from differences(stored, again)
  free = [bound.view.split(params)[0] for params in (released, corrected)]
  yield from scrutiny.disagreements(
    *free, sigma=again.sigma, grid=again.grid, norm=bound.norm
  )


def differences(stored: Certificate, again: Certificate) -> Iterator[str]:
  """Compares a certificate with one that was made anew from the data.

  Numbers agree to a relative 1e-6; measured norms may differ by the measured
  allowance for rounding too. `versions` may be others.

  Yields:
    A sentence for each field that differs, beginning with its name.
  """
  found, expected = (dict(strict.leaves(c)) for c in (stored, again))
  arguments = {**again.measured.arguments}
  for path in sorted(found.keys() | expected.keys()):
    if path.startswith("versions."):
      continue
    a, b = found.get(path), expected.get(path)
    error = arguments.get(_ERRORS.get(path, ""), 0.0)
    slack = 2 * error if isinstance(error, float) else 0.0
    if path == "measured.result":  # computed again from its arguments, below
      continue
    if not _agree(a, b, slack):
      yield f"{path} is {a!r}; computed again it is {b!r}."
  if not again.measured.result <= stored.max_distance:
    yield (
      f"max_distance is {stored.max_distance!r}; the distance measured again "
      f"is {again.measured.result!r}."
    )


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
  if c.head is not None:
    yield from check_head(c.head)
  yield from _limit(c)
  yield from _sigma(c)
  if c.noise_dimensions < 1:
    yield f"noise_dimensions is {c.noise_dimensions}; it must be at least 1."
  if c.norm not in get_args(noise.Norm):
    yield f"norm is {c.norm!r}; it must be 'joint' or 'row'."
  for name in ("checked", "stated"):
    if not all(text.strip() for text in getattr(c, name).values()):
      yield f"{name} has an empty sentence; what it rests on must be said."
    if not getattr(c, name):
      yield f"{name} is empty; what a certificate rests on must be said."
  for name, value in c.hashes._asdict().items():
    yield from _hexadecimal(f"hashes.{name}", value)
  for name, value in c.seeds.items():
    yield from _hexadecimal(f"seeds.{name}", value)
    if "noise" in name:
      yield f"seeds.{name} may lead to the noise; it must not be kept."


def _limit(c):
  if c.limit is not None:
    try:
      check_a_priori(c.limit)
    except ValueError as error:
      yield f"limit: {error}"
    else:
      yield from check_distance("limit", c.limit, c.head)
      yield from same("max_distance", c.max_distance, c.limit.result)
  if not 0 <= c.measured.result <= c.max_distance:
    yield (
      f"measured.result is {c.measured.result}; it must be at most "
      f"max_distance, {c.max_distance}."
    )
  elif c.measured.result == c.max_distance:
    yield (
      f"max_distance is {c.max_distance}, exactly what was measured; it must "
      "be chosen before."
    )


def _sigma(c):
  for name in ("retrain_error", "rounding"):
    if getattr(c, name) < 0:
      yield f"{name} is {getattr(c, name)}; it must be at least 0."
  try:
    unrounded = c.max_distance + c.retrain_error
    step = noise.grid(calibrate.gaussian_sigma(c.epsilon, c.delta, unrounded))
    sigma = calibrate.gaussian_sigma(c.epsilon, c.delta, c.distance)
  except ValueError as error:
    yield f"sigma cannot be computed: {error}"
    return
  yield from same("grid", c.grid, step)
  rounding = noise.rounding(step, max(c.noise_dimensions, 0))
  yield from same("rounding", c.rounding, rounding)
  yield from same("sigma", c.sigma, sigma)


def _agree(stored, found, slack):
  if type(stored) is not type(found) or not isinstance(stored, int | float):
    return stored == found
  return math.isclose(stored, found, rel_tol=_RELATIVE, abs_tol=slack)


def _hexadecimal(path, value):
  if len(value) != 64 or set(value) - set("0123456789abcdef"):
    yield f"{path} is {value!r}; it must be 64 hexadecimal digits."
