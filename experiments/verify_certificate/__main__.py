"""Checks what a certified run left in its folder, without trusting it.

    python -m experiments.verify_certificate DIR --public_key=KEY --head=HASH

Which releases there must be follows from `config.json`. Each is measured again
from the data and the params without noise: its certificate is made anew and
compared field by field, its assumptions are checked, its noise is put to the
test (`certify.scrutiny`), its line in the ledger must be signed, and a program
that shares no code with the library computes the figures a second time
(`independent_check`). Prints a line for each disagreement and exits non-zero if
there is one.

Everything in DIR can be made anew by whoever has its signing key, with other
promises: that, only the head tells, kept elsewhere. The public key, kept
elsewhere, tells what others made. The report, `results.jsonl`, `evidence` and
`private/requests.json` are not read.
"""

import hashlib
import importlib
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.release import register
from experiments.run import program
from experiments.run.workdir import read_config, restore_flags
from experiments.verify_certificate import independent_check
from junlearn import tree
from junlearn.certify import certificate as certificates
from junlearn.certify import ledger, scrutiny, signing

_CERTIFICATE, _PARAMS = "certificate.json", "params.safetensors"
_RELEASES = "releases"

# Characters of a line that is printed, and releases that are read, at most.
_LONGEST, _MOST = 1000, 10_000
# Flags that a run's releases are counted by.
_COUNTS = ("seeds", "requests")
# By the `experiment` of a run, the module that reads what it kept.
EXPERIMENTS = {
  "decentralized": "experiments.decentralized.remeasure",
  "classification": "experiments.classification.remeasure",
}

_HEAD = flags.DEFINE_string(
  "head", None, "Hash of the ledger's last line, from where it was kept."
)
_PUBLIC_KEY = flags.DEFINE_string(
  "public_key", None, "Key that must have signed the ledger, 64 hex digits."
)


def main(arguments: Sequence[str]) -> None:
  """Checks one folder and exits 1 if something does not agree."""
  if len(arguments) != 1:
    raise ValueError(
      f"{len(arguments)} folders were given; name the folder of one run."
    )
  folder = Path(arguments[0])
  found = list(problems(folder, head=_HEAD.value, public_key=_PUBLIC_KEY.value))
  for problem in found:
    print(_printable(problem))
  if found:
    sys.exit(1)
  entries = ledger.read(folder / register.LEDGER)
  last = entries[-1]
  print(
    f"{folder}: all agrees on {len(entries)} releases at epsilon "
    f"{last.epsilon:g} and delta {last.delta:g} together; the head of the "
    f"ledger is {last.hash}, signed by {last.signer}. Reports, rows, evidence "
    "and the list of requests were not read."
  )


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
  opened, problem = _try(lambda: _open(folder))
  if opened is None:
    yield f"{folder}: {problem}"
    return
  module, names = opened
  path, kept = (
    folder / register.LEDGER,
    {"head": head, "public_key": public_key},
  )
  entries, problem = _try(lambda: ledger.read(path, **kept))
  if problem:
    yield f"{register.LEDGER}: {problem}"
    entries, _ = _try(lambda: ledger.read(path))
  entries = entries or ()
  text, _ = _try(lambda: path.read_bytes().decode())
  if text is not None:
    for problem in _all(
      lambda: independent_check.ledger_problems(text, public_key)
    ):
      yield f"{register.LEDGER}: independently: {problem}"
  yield from _enumerated(folder, names, entries)
  yield from _keys(folder, entries)
  if stale := list(_config(folder, names)):
    yield from stale
    return
  reader, problem = _try(lambda: module.Reader(folder))
  if reader is None:
    yield f"{folder}: {problem}"
    return
  noises = []
  for index, name in enumerate(names):
    entry = entries[index] if index < len(entries) else None
    for problem in _release(folder, name, module, reader, entry, noises):
      yield f"{_RELEASES}/{name}/{problem}"
  for problem in _all(lambda: scrutiny.pooled(noises)):
    yield f"{_RELEASES}: {problem}"


def _try(function: Callable[[], Any]) -> tuple[Any, str]:
  """What a function returns, or None and what was wrong.

  The folder may hold anything, so that anything may go wrong in reading it.
  """
  try:
    with np.errstate(all="ignore"):
      return function(), ""
  except (ValueError, OSError, ArithmeticError) as error:
    return None, " ".join(str(error).split()) or type(error).__name__
  except Exception as error:
    return None, f"cannot be verified ({type(error).__name__}: {error})."


def _all(check: Callable[[], Iterator[str]]) -> list[str]:
  """The sentences of a check, or the one why it cannot be made."""
  found, problem = _try(lambda: list(check()))
  return [problem] if found is None else found


def _printable(problem: str) -> str:
  """In one line: names and values are the folder's, and may be anything."""
  line = "".join(c if c.isprintable() else "?" for c in problem)
  return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _open(folder):
  """The module that reads the run, and the releases that there must be."""
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
  names = module.names()
  if not names:
    raise ValueError("the run makes no certified releases.")
  return module, names


def _special(folder) -> Iterator[str]:
  """Links, pipes and devices: they may be anything, anywhere, for ever."""
  for root, folders, files in os.walk(folder):
    for name in (*folders, *files):
      path = Path(root, name)
      if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFDIR, stat.S_IFREG):
        yield f"{path.relative_to(folder)}: is no file and no folder."


def _config(folder, names) -> Iterator[str]:
  """What other flags ask for is not run: it may be of any size."""
  content, problem = _try((folder / "config.json").read_bytes)
  if problem:
    yield f"config.json: {problem}"
    return
  for name in names:
    path = folder / _RELEASES / name / _CERTIFICATE
    stored, _ = _try(lambda p=path: certificates.from_json(p.read_text()))
    if stored and stored.hashes.config != hashlib.sha256(content).hexdigest():
      yield (
        f"config.json: is not the one that {_RELEASES}/{name}/{_CERTIFICATE} "
        "was issued with; nothing was measured again."
      )


def _enumerated(folder, names, entries) -> Iterator[str]:
  """No release may be missing, and none be there besides."""
  entered = [entry.request for entry in entries]
  for index, name in enumerate(names):
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
    allowed |= {f"{_RELEASES}/{name}/{f}" for f in (_CERTIFICATE, _PARAMS)}
  above = {
    parent.as_posix() for name in allowed for parent in Path(name).parents
  }
  for path in sorted((folder / _RELEASES).rglob("*")):
    name = path.relative_to(folder).as_posix()
    if name not in (above if path.is_dir() else allowed):
      yield f"{name}: is no part of this run's releases."


def _keys(folder, entries) -> Iterator[str]:
  """The keys in the folder are those of who signed."""
  signers = {entry.signer for entry in entries}
  text, problem = _try(lambda: (folder / register.PUBLIC_KEY).read_text())
  if problem:
    yield f"{register.PUBLIC_KEY}: {problem}"
  elif signers and {text.removesuffix("\n")} != signers:
    yield f"{register.PUBLIC_KEY}: is not the key that signed the ledger."
  own = folder / register.SIGNING_KEY
  if signers and own.exists():
    key, problem = _try(
      lambda: signing.public_key(signing.load_key(own.read_bytes()))
    )
    if key is None or {key} != signers:
      problem = problem or "is not the key that signed the ledger."
      yield f"{register.SIGNING_KEY}: {problem}"


def _release(folder, name, module, reader, entry, noises) -> Iterator[str]:
  """What does not agree in one release; its noise is added to the others."""
  place = folder / _RELEASES / name
  text, problem = _try(lambda: (place / _CERTIFICATE).read_bytes().decode())
  stored, unread = _try(lambda: certificates.from_json(text))
  if text is None or stored is None:
    yield f"{_CERTIFICATE}: {problem or unread}"
    return
  for problem in _all(lambda: certificates.disagreements(stored)):
    yield f"{_CERTIFICATE}: {problem}"
  found, problem = _try(lambda: _again(folder, name, module, reader))
  if found is None:
    yield f"{_CERTIFICATE}: {problem}"
    return
  answer, directions, again, line = found
  for problem in _all(lambda: certificates.differences(stored, again)):
    yield f"{_CERTIFICATE}: {problem}"
  if entry is not None:
    line["certificate"] = certificates.sha256(text)
    line |= {"distance": stored.distance, "sigma": stored.sigma}
    for field, value in line.items():
      if getattr(entry, field) != value:
        yield (
          f"{_CERTIFICATE}: line {entry.index + 1} of the ledger has the "
          f"{field} {getattr(entry, field)!r}; it must be {value!r}."
        )
  for problem in _all(lambda: _noise(answer, again, directions, noises)):
    yield f"{_PARAMS}: {problem}"
  line = entry._asdict() if entry else {}
  for problem in _all(
    lambda: independent_check.problems(
      _case(module, reader, name, answer), json.loads(text), line
    )
  ):
    yield f"{_CERTIFICATE}: independently: {problem}"


def _case(module, reader, name, answer):
  """The release as `independent_check` reads it, with the run's terms."""
  terms = module.terms()
  budget = ("epsilon", "delta", "planned")
  return {
    **reader.case(name, answer),
    "max_distance": terms.max_distance,
    "budget": {part: getattr(terms, part) for part in budget},
  }


def _again(folder, name, module, reader):
  """The release, its certificate and its line, made anew."""
  answer, places = reader.answer(name)
  terms = module.terms()
  salt = (folder / register.SALT).read_bytes()
  again = register.certify(
    answer,
    terms,
    experiment=module.EXPERIMENT,
    config=(folder / "config.json").read_bytes(),
    salt=salt,
  )
  line = register.line(again, answer, terms, salt)
  return answer, places, again, line


def _noise(answer, again, places, noises) -> list[str]:
  """What is wrong with the noise, given that of the releases before."""
  options = {"sigma": again.sigma, "grid": again.grid, "norm": again.norm}
  view = answer.bound.view
  released, corrected = (
    view.split(params)[0] for params in (answer.released, answer.corrected)
  )
  clients = answer.bound.axes == 2 and answer.bound.norm == "joint"
  directions = {
    name: jax.tree.map(np.subtract, view.split(params)[0], corrected)
    for name, params in places.items()
  }
  found = list(
    scrutiny.disagreements(
      released,
      corrected,
      **options,
      rows=tree.size(released) if clients else None,
      others=noises,
      directions=directions,
    )
  )
  noises.append(scrutiny.standardized(released, corrected, **options))
  return found


if __name__ == "__main__":
  program.start(main)
