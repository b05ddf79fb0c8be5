"""Everything in the folder of a certified run that does not agree."""

import hashlib
import importlib
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.release import register
from experiments.release.names import Name
from experiments.run.workdir import read_config, restore_flags
from experiments.verify_certificate import independent_check
from experiments.verify_certificate.attempts import attempt, sentences
from experiments.verify_certificate.releases import (
  CERTIFICATE,
  PARAMS,
  Verifier,
)
from junlearn.certify import certificate as certificates
from junlearn.certify import ledger, signing

_RELEASES = "releases"
_MOST = 10_000  # releases that are read
# Flags that a run's releases are counted by.
_COUNTS = ("seeds", "requests")
# By the `experiment` of a run, the module that reads what it kept: it has
# `releases()` and `promised()`, by the flags, and `reader(folder)`.
EXPERIMENTS = {
  "decentralized": "experiments.decentralized.remeasure",
  "classification": "experiments.classification.remeasure",
}


def problems(
  folder: Path, *, head: str | None = None, public_key: str | None = None
) -> Iterator[str]:
  """Everything in the folder of a run that does not agree.

  Args:
    folder: of the run.
    head: hash that the ledger must end with, if it was kept.
    public_key: that must have signed it, if it was kept.

  Yields:
    A line for each, beginning with the file and the field or line.
  """
  if special := list(_special(folder)):
    yield from special
    return
  opened, problem = attempt(lambda: _open(folder))
  if opened is None:
    yield f"{folder}: {problem}"
    return
  experiment, module, names = opened
  path = folder / register.LEDGER
  entries, problem = attempt(
    lambda: ledger.read(path, head=head, public_key=public_key)
  )
  if problem:
    yield f"{register.LEDGER}: {problem}"
    entries, _ = attempt(lambda: ledger.read(path))
  entries = entries or ()
  text, _ = attempt(lambda: path.read_bytes().decode())
  if text is not None:
    for problem in sentences(
      lambda: independent_check.ledger_problems(text, public_key)
    ):
      yield f"{register.LEDGER}: independently: {problem}"
  yield from _enumerated(folder, names, entries)
  yield from _keys(folder, entries)
  if stale := list(_config(folder, names)):
    yield from stale
    return
  verifier, problem = attempt(
    lambda: Verifier(
      folder, experiment, module.promised(), module.reader(folder)
    )
  )
  if verifier is None:
    yield f"{folder}: {problem}"
    return
  for index, name in enumerate(names):
    entry = entries[index] if index < len(entries) else None
    for problem in verifier.problems(name, entry):
      yield f"{_RELEASES}/{name}/{problem}"
  for problem in verifier.pooled():
    yield f"{_RELEASES}: {problem}"


def _open(folder: Path) -> tuple[str, Any, list[Name]]:
  """The experiment, its module, and the releases that there must be."""
  config = read_config(folder)
  experiment = config.get("experiment")
  if experiment not in EXPERIMENTS:
    raise ValueError(
      f"config.json has the experiment {experiment!r}; certificates come from "
      f"{', '.join(EXPERIMENTS)}."
    )
  module = importlib.import_module(EXPERIMENTS[experiment])
  for name in config["flags"]:
    if name not in flags.FLAGS:
      raise ValueError(f"config.json has {name!r}, which is no flag.")
  restore_flags(folder)
  counts = [config["flags"].get(name, 1) for name in _COUNTS]
  if math.prod(counts) > _MOST:
    raise ValueError(
      f"config.json has {' times '.join(_COUNTS)} as {math.prod(counts)}; at "
      f"most {_MOST} releases are verified."
    )
  names = module.releases()
  if not names:
    raise ValueError("the run makes no certified releases.")
  return experiment, module, names


def _special(folder: Path) -> Iterator[str]:
  """Links, pipes and devices: they may be anything, anywhere, for ever."""
  for root, folders, files in os.walk(folder):
    for name in (*folders, *files):
      path = Path(root, name)
      if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFDIR, stat.S_IFREG):
        yield f"{path.relative_to(folder)}: is no file and no folder."


def _config(folder: Path, names: Sequence[Name]) -> Iterator[str]:
  """What other flags ask for is not run: it may be of any size."""
  content, problem = attempt((folder / "config.json").read_bytes)
  if problem:
    yield f"config.json: {problem}"
    return
  for name in names:
    path = folder / f"{_RELEASES}/{name}/{CERTIFICATE}"
    stored, _ = attempt(lambda p=path: certificates.from_json(p.read_text()))
    if stored and stored.hashes.config != hashlib.sha256(content).hexdigest():
      yield (
        f"config.json: is not the one that {_RELEASES}/{name}/{CERTIFICATE} "
        "was issued with; nothing was measured again."
      )


def _enumerated(
  folder: Path, names: Sequence[Name], entries: Sequence[ledger.Entry]
) -> Iterator[str]:
  """No release may be missing, and none be there besides."""
  entered = [entry.request for entry in entries]
  for index, name in enumerate(map(str, names)):
    if index >= len(entered):
      yield (
        f"{register.LEDGER}: has no line {index + 1}, for {name}; the run was "
        "not finished, or the line was removed."
      )
    elif entered[index] != name:
      yield (
        f"{register.LEDGER}: line {index + 1} is that of {entered[index]!r}; "
        f"it must be that of {name!r}."
      )
  for name in entered[len(names) :]:
    yield f"{register.LEDGER}: {name!r} is no release of this run."
  allowed = {register.LEDGER, f"{register.LEDGER}.lock", register.PUBLIC_KEY}
  for name in names:
    allowed |= {f"{_RELEASES}/{name}/{f}" for f in (CERTIFICATE, PARAMS)}
  above = {
    parent.as_posix() for name in allowed for parent in Path(name).parents
  }
  for path in sorted((folder / _RELEASES).rglob("*")):
    name = path.relative_to(folder).as_posix()
    if name not in (above if path.is_dir() else allowed):
      yield f"{name}: is no part of this run's releases."


def _keys(folder: Path, entries: Sequence[ledger.Entry]) -> Iterator[str]:
  """The keys in the folder are those of who signed."""
  signers = {entry.signer for entry in entries}
  text, problem = attempt(lambda: (folder / register.PUBLIC_KEY).read_text())
  if problem:
    yield f"{register.PUBLIC_KEY}: {problem}"
  elif signers and {text.removesuffix("\n")} != signers:
    yield f"{register.PUBLIC_KEY}: is not the key that signed the ledger."
  own = folder / register.SIGNING_KEY
  if signers and own.exists():
    key, problem = attempt(
      lambda: signing.public_key(signing.load_key(own.read_bytes()))
    )
    if key is None or {key} != signers:
      problem = problem or "is not the key that signed the ledger."
      yield f"{register.SIGNING_KEY}: {problem}"
