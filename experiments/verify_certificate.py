"""Checks what a certified run left in its folder, without trusting it.

    python -m experiments.verify_certificate DIR

Reads `config.json` and, of every network's releases, the ledger and the
certificates (`experiments.register`); computes every number again that others
determine; measures the distance to retraining again on the retained data, and
the noise in the released params. Prints a line for each disagreement, naming
file and field, and exits non-zero if there is one.
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
_RELEASES = "releases"

# By `Certificate.experiment`, the module that measures its releases again by
# `remeasure(folder, name, index) -> {field: value}`, with at least the fields
# `_MEASURED`.
EXPERIMENTS = {"decentralized": "experiments.network_remeasure"}

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

_HEAD = flags.DEFINE_list(
  "head",
  [],
  "Hashes that the last lines of ledgers must have, from where they were kept.",
)


def main(arguments: Sequence[str]) -> None:
  """Checks one folder and exits 1 if something does not agree."""
  if len(arguments) != 1:
    raise ValueError(
      f"{len(arguments)} folders were given; name the folder of one run."
    )
  folder = Path(arguments[0])
  found = list(problems(folder, heads=_HEAD.value))
  for problem in found:
    print(problem)
  if found:
    sys.exit(1)
  for path in _ledgers(folder):
    last = ledger.read(path)[-1]
    print(f"{path.parent}: all agrees; the head of the ledger is {last.hash}")


def problems(folder: Path, *, heads: Sequence[str] = ()) -> Iterator[str]:
  """Everything in the folder of a run that does not agree.

  Args:
    folder: of the run.
    heads: hashes that ledgers must end with, as far as they were kept.

  Yields:
    A line for each, beginning with the file and the field or line.
  """
  paths = _ledgers(folder)
  if not paths:
    yield f"{folder}: holds no releases with a {_LEDGER}."
  ends = set()
  for path in paths:
    name = path.parent.relative_to(folder / _RELEASES).as_posix()
    entries = ()
    try:
      entries = ledger.read(path)
    except (ValueError, OSError) as error:
      yield f"{path.relative_to(folder)}: {error}"
    ends |= {entry.hash for entry in entries[-1:]}
    issued = {int(p.name) for p in path.parent.iterdir() if p.name.isdecimal()}
    for index in sorted(issued | set(range(len(entries)))):
      yield from _release(folder, name, index, entries)
  for head in sorted(set(heads) - ends):
    yield (
      f"{head} is the head of no ledger: lines were removed or written anew."
    )


def _ledgers(folder: Path) -> list[Path]:
  return sorted((folder / _RELEASES).rglob(_LEDGER))


def _release(folder, name, index, entries) -> Iterator[str]:
  """What does not agree in one release."""
  place = f"{_RELEASES}/{name}"
  file = f"{place}/{index}/{_CERTIFICATE}"
  try:
    text = _text(folder / file)
    issued = certificates.from_json(text)
  except ValueError as error:
    yield f"{file}: {error}"
    return
  if not issued.certified:
    yield f"{file}: certified is False; this certifies nothing."
  for problem in certificates.disagreements(issued):
    yield f"{file}: {problem}"
  yield from _config(folder, issued)
  if index < len(entries):
    digest = certificates.sha256(text)
    for problem in _entered(entries[index], issued, digest, file):
      yield f"{place}/{_LEDGER}: {problem}"
  else:
    yield f"{place}/{_LEDGER}: has no line {index + 1}, for {file}."
  for problem in _measured(folder, name, index, issued):
    yield f"{file}: {problem}"


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


def _entered(entry, issued, digest, file) -> Iterator[str]:
  """The ledger's line is that of the certificate."""
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
        f"line {entry.index + 1}: {field} is {stored!r}; that of "
        f"{file} is {value!r}."
      )


def _measured(folder, name, index, issued) -> Iterator[str]:
  if issued.experiment not in EXPERIMENTS:
    yield (
      f"experiment is {issued.experiment!r}; only "
      f"{', '.join(EXPERIMENTS)} can be measured again."
    )
    return
  module = importlib.import_module(EXPERIMENTS[issued.experiment])
  found: Mapping[str, float | str] = module.remeasure(folder, name, index)
  for field in sorted(_MEASURED - set(found)):
    yield f"{field} was not measured again."
  for field, value in found.items():
    if field == "noise.square":
      yield from _noise(value, issued)
      continue
    stored = _lookup(issued, field)
    enough = field.startswith(_LIMITS) and stored >= value
    if not (enough or _agree(stored, value)):
      yield (f"{field} is {stored!r}; measured again it is {value!r}.")


def _noise(square: float, issued: Certificate) -> Iterator[str]:
  """Whether the noise has the scale of sigma: a chi-squared test."""
  law = stats.chi2(issued.noise_dimensions)
  score = square / issued.sigma**2
  if not min(law.cdf(score), law.sf(score)) > _SIGNIFICANCE / 2:
    scale = math.sqrt(square / issued.noise_dimensions)
    yield (
      f"sigma is {issued.sigma!r}; the noise released has the scale {scale!r}."
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
