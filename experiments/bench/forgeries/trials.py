"""Tries edits in copies of a run, and asks the verifier about each."""

import shutil
import signal
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags

from experiments.bench.forgeries.edits import EDITS
from experiments.bench.forgeries.outcomes import FORGERS, Outcome
from experiments.bench.forgeries.rewrite import rewrite
from experiments.release import register
from experiments.run.workdir import read_config
from experiments.verify_certificate import checks
from junlearn.certify import signing

_SECONDS = 120  # that a verification may take
_EVERY = 25  # verifications between two reports of progress
_READER = "experiments.bench.forgeries.reader"


class _TooLongError(BaseException):
  """Nothing catches it."""


def some(run: Path, copy: Path, indices: range, seed: int) -> list[Outcome]:
  """Edits one after the other, in a process of their own.

  Args:
    run: folder that is copied.
    copy: where to.
    indices: of the edits.
    seed: of all of them.
  """
  flags.FLAGS(["forgeries"])
  jax.config.update("jax_compilation_cache_dir", str(run.with_name("compiled")))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  signal.signal(signal.SIGALRM, _too_long)
  checks.EXPERIMENTS["decentralized"] = _READER
  outcomes = []
  for index in indices:
    outcomes.append(_one(run, copy, index, seed))
    if len(outcomes) % _EVERY == 0:
      print(f"{len(outcomes)} of {len(indices)}", file=sys.stderr, flush=True)
  return outcomes


def _one(run, copy, index, seed) -> Outcome:
  """One edit; what leaves the folder as it was is drawn again."""
  rng = np.random.default_rng([seed, index])
  forger = FORGERS[(0, 1, 0, 2)[index // 2 % 4]]
  weights = np.array([weight for _, weight in EDITS.values()])
  key = signing.load_key((run / register.SIGNING_KEY).read_bytes())
  while True:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evidence"))
    name = list(EDITS)[rng.choice(len(weights), p=weights / weights.sum())]
    where = EDITS[name][0](copy, rng)
    if forger != "edits" and (copy / "config.json").exists():
      rewrite(copy, key if forger == "signs" else None)
    if where is not None and _content(copy) != _content(run):
      return Outcome(name, where, forger, *_verified(run, copy))


def _content(folder):
  return {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file() and "evidence" not in path.parts
  }


def _verified(run, copy):
  """What the verifier finds, and its first sentence."""
  for name in read_config(run)["flags"]:  # as in a process of its own
    if name in flags.FLAGS:
      flags.FLAGS[name].value = flags.FLAGS[name].default
  signal.alarm(_SECONDS)
  try:
    found = list(checks.problems(copy))
  except _TooLongError:
    return "crashed", f"took more than {_SECONDS} seconds"
  except Exception as error:
    return "crashed", repr(error)
  finally:
    signal.alarm(0)
  if not found:
    return "unnoticed", ""
  unread = found[0].startswith(f"{copy}: ") or any(
    "cannot be verified (" in problem for problem in found
  )
  return "refused" if unread else "noticed", found[0]


def _too_long(*_):
  raise _TooLongError
