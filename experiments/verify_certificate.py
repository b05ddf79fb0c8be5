"""Checks what a certified run left in its folder, without trusting it.

    python -m experiments.verify_certificate DIR

Reads `certificate.json`, `ledger.jsonl` and `config.json`; computes every
number again that others determine; measures the distance to retraining again
on the retained data, and the noise in the released params. Prints a line for
each disagreement, naming file and field, and exits non-zero if there is one.
"""

import importlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from scipy import stats

from experiments import harness
from junlearn.certify import certificate as certificates
from junlearn.certify import ledger
from junlearn.certify.certificate import Certificate

_CERTIFICATE = "certificate.json"
_LEDGER = "ledger.jsonl"
_CONFIG = "config.json"

# By `Certificate.experiment`, the module that measures its runs again by
# `remeasure(folder) -> {field: value}`, with at least the fields `_MEASURED`.
EXPERIMENTS = {"decentralized": "experiments.decentralized"}

# Fields are as in the certificate. `noise.square` is the squared norm of what
# the release differs by from the params that `measured` speaks of, over the
# `noise_dimensions` numbers that were drawn.
_MEASURED = frozenset(
  {
    "hashes.forget_ids",
    "hashes.retain_ids",
    "hashes.params_before",
    "hashes.params_after",
    "measured.result",
    "noise.square",
  }
)
# Public numbers that need only be as large as what is measured.
_LIMITS = ("comparator", "head.arguments.input_norm", "public.arguments.")
# Other machines sum in another order; distances below 1e-9 are rounding.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
# An honest release fails the test of its noise this often.
_SIGNIFICANCE = 1e-9

_HEAD = flags.DEFINE_string(
  "head",
  None,
  "Hash that the last line of the ledger must have, from where it was kept.",
)


def main(arguments: Sequence[str]) -> None:
  """Checks one folder and exits 1 if something does not agree."""
  if len(arguments) != 1:
    raise ValueError(
      f"{len(arguments)} folders were given; name the folder of one run."
    )
  folder = Path(arguments[0])
  found = list(problems(folder, head=_HEAD.value))
  for problem in found:
    print(problem)
  if found:
    sys.exit(1)
  last = ledger.read(folder / _LEDGER)[-1]
  print(f"{folder}: all agrees; the head of the ledger is {last.hash}")


def problems(folder: Path, *, head: str | None = None) -> Iterator[str]:
  """Everything in the folder of a run that does not agree.

  Args:
    folder: of the run.
    head: hash that the ledger must end with, if it was kept.

  Yields:
    A line for each, beginning with the file and the field or line.
  """
  issued, digest = None, None
  try:
    text = _text(folder / _CERTIFICATE)
    issued, digest = certificates.from_json(text), certificates.sha256(text)
  except ValueError as error:
    yield f"{_CERTIFICATE}: {error}"
  entries = ()
  try:
    entries = ledger.read(folder / _LEDGER, head=head)
  except (ValueError, OSError) as error:
    yield f"{_LEDGER}: {error}"
  if issued is None:
    return
  if not issued.certified:
    yield f"{_CERTIFICATE}: certified is False; this certifies nothing."
  for problem in certificates.disagreements(issued):
    yield f"{_CERTIFICATE}: {problem}"
  yield from _config(folder, issued)
  if entries:
    yield from _entered(entries[-1], issued, digest)
  yield from _measured(folder, issued)


def _text(path):
  try:
    return path.read_bytes().decode()
  except OSError as error:
    raise ValueError(f"cannot be read ({error.strerror})") from error


def _config(folder, issued):
  try:
    found = certificates.sha256(_text(folder / _CONFIG))
  except ValueError as error:
    yield f"{_CONFIG}: {error}"
    return
  if found != issued.hashes.config:
    yield (
      f"{_CONFIG}: its SHA-256 is {found}; the certificate's hashes.config is "
      f"{issued.hashes.config}."
    )


def _entered(entry: ledger.Entry, issued: Certificate, digest: str):
  """The ledger's last line is that of the certificate."""
  for field, value in (
    ("certificate", digest),
    ("distance", issued.distance),
    ("sigma", issued.sigma),
    ("params_before", issued.hashes.params_before),
    ("params_after", issued.hashes.params_after),
  ):
    stored = getattr(entry, field)
    if not _agree(stored, value):
      yield (
        f"{_LEDGER}: line {entry.index + 1}: {field} is {stored!r}; that of "
        f"{_CERTIFICATE} is {value!r}."
      )


def _measured(folder: Path, issued: Certificate) -> Iterator[str]:
  if issued.experiment not in EXPERIMENTS:
    yield (
      f"{_CERTIFICATE}: experiment is {issued.experiment!r}; only "
      f"{', '.join(EXPERIMENTS)} can be measured again."
    )
    return
  module = importlib.import_module(EXPERIMENTS[issued.experiment])
  found: Mapping[str, float | str] = module.remeasure(folder)
  for field in sorted(_MEASURED - set(found)):
    yield f"{_CERTIFICATE}: {field} was not measured again."
  for field, value in found.items():
    if field == "noise.square":
      yield from _noise(value, issued)
      continue
    stored = _lookup(issued, field)
    enough = field.startswith(_LIMITS) and stored >= value
    if not (enough or _agree(stored, value)):
      yield (
        f"{_CERTIFICATE}: {field} is {stored!r}; measured again it is "
        f"{value!r}."
      )


def _noise(square: float, issued: Certificate) -> Iterator[str]:
  """Whether the noise has the scale of sigma: a chi-squared test."""
  law = stats.chi2(issued.noise_dimensions)
  score = square / issued.sigma**2
  if not min(law.cdf(score), law.sf(score)) > _SIGNIFICANCE / 2:
    scale = math.sqrt(square / issued.noise_dimensions)
    yield (
      f"{_CERTIFICATE}: sigma is {issued.sigma!r}; the noise released has "
      f"the scale {scale!r}."
    )


def _lookup(value: Any, field: str) -> Any:
  for name in field.split("."):
    value = value[name] if isinstance(value, dict) else getattr(value, name)
  return value


def _agree(stored: Any, found: Any) -> bool:
  if isinstance(stored, str) or isinstance(found, str) or stored is None:
    return stored == found
  return math.isclose(stored, found, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


if __name__ == "__main__":
  harness.start(main)
