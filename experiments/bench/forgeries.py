"""Random forgeries of a certified run, and which of them the verifier finds.

    python -m experiments.bench.forgeries [--run=DIR] [--edits=N] [--out=FILE]

Each edit is made in a copy of the run, by one of three forgers: half of them
only edit, a quarter makes all hashes agree again, and a quarter signs the
ledger anew too, with the run's own key. Nobody kept its head elsewhere. Exits
with 1 if an edit goes unnoticed that is not known to, or if the verifier ends
in anything but sentences.
"""

import collections
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags

from experiments.bench.conditions import conditions
from experiments.bench.forgeries_edits import EDITS
from experiments.bench.forgeries_rewrite import rewrite
from experiments.release import register
from experiments.run.workdir import read_config
from experiments.verify_certificate import __main__ as verify_certificate
from junlearn.certify import signing

_RUN = flags.DEFINE_string(
  "run", None, "Folder of a finished run of experiments.decentralized; it is "
  "copied (default: a small one that is made)."
)  # fmt: skip
_EDITS = flags.DEFINE_integer("edits", 1000, "Edits to try.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the edits.")
_OUT = flags.DEFINE_string("out", None, "Write the table here, as Markdown.")

_SMALL = (
  "--clients=4",
  "--num_train=200",
  "--num_test=100",
  "--seeds=1",
  "--requests=2",
  "--l2=0.1",
  "--rounds=200",
  "--tolerance=1e-4",
  "--method=newton,consensus",
)
FORGERS = ("edits", "hashes", "signs")
_SECONDS = 120
_EVERY = 25  # verifications between two reports of progress
_READER = "experiments.bench.forgeries_reader"

# What may go unnoticed, as a pattern of "forger, edit, where", and why.
_KNOWN = {
  r"signs, .*, certificate: versions.*": "a certificate's versions are told, "
  "not promised",
  r"signs, .*, config: (versions|device|commit|command).*": "what a "
  "configuration tells beside its flags is not read",
  r"signs, .*, config: flags\.(workdir|data_dir|manual_dir|cache_dir|debug"
  r"|checkpoint_seconds|process_id|num_processes|coordinator_address"
  r"|multiprocess)": "where and how a run was made has no part in what it "
  "promises",
  r"signs, .*, config: flags\.(rounds|finetune_rounds)": "retraining ends by "
  "the tolerance, not by rounds",
  r"signs, .*, config: flags\.edge_probability": "read for another graph alone",
  r"signs, .*, config: flags\.num_test": "test records have no part in a "
  "release",
  r"signs, a field deleted, config: flags\.\w+": "a flag that is left out has "
  "its default, with which all agrees",
  r".*, (a bit flipped|a file removed), checkpoint: .*": "params are read with "
  "their hash and are the same; else it is a phase's notes, or its copy of "
  "what is read below `releases`",
  r".*, files exchanged, checkpoint: \S*(-released|/finetune) and "
  r"\S*(-released|/finetune)": "neither is read",
  r".*, files exchanged, checkpoint: \S*/(finetune|retrain) and "
  r"\S*/(finetune|retrain)": "retrained params are a second opinion, on which "
  "nothing that is promised rests",
  r"signs, a released number moved, by (1e-06|1) sigma": "as likely a noise as "
  "the one before",
  r"signs, a bit flipped, params": "a multiple of the grid within the noise",
  r"signs, files exchanged, params.safetensors": "the models of two requests "
  "are nearer than 6 sigma, below which one release shows no shift",
  r".*, (private/signing_key.pem|signing key)": "the key need not lie there, "
  "and can be written in more than one way",
}


class Outcome(NamedTuple):
  """What came of one edit.

  Attributes:
    edit: a key of `EDITS`.
    where: what of the folder it changed.
    forger: one of `FORGERS`.
    kind: "noticed", "refused" (the folder could not be read), "unnoticed" or
      "crashed".
    why: the first sentence of the verifier, or the error.
  """

  edit: str
  where: str
  forger: str
  kind: str
  why: str

  @property
  def reason(self) -> str | None:
    """Why it may go unnoticed, if that is known."""
    told = f"{self.forger}, {self.edit}, {self.where}"
    for pattern, reason in _KNOWN.items():
      if re.fullmatch(pattern, told):
        return reason
    return None


_ABOUT = """# Forgeries

Random edits of a certified run, and what the verifier said of each: something
that does not agree, or that the folder cannot be read. One forger only edits,
one makes all hashes agree again, one signs the ledger anew too, with the run's
own key; nobody kept its head elsewhere, which would find the last.
"""


class _TooLongError(BaseException):
  """Nothing catches it."""


def main(arguments: Sequence[str]) -> None:
  """Tries the edits, prints the table, writes it where the flags say."""
  if len(arguments) > 1:
    raise app.UsageError(f"unexpected argument {arguments[1]!r}")
  before = os.getloadavg()
  with tempfile.TemporaryDirectory() as name:
    run = Path(name) / "run"
    if _RUN.value is None:
      _make(run)
    else:
      shutil.copytree(_RUN.value, run)
    outcomes = list(_all(run, _EDITS.value, _SEED.value))
  text = markdown(outcomes)
  if _OUT.value:
    with open(_OUT.value, "w") as out:
      out.write(f"{text}\n{conditions(before)}\n")
  print(text)
  if any(o.kind == "crashed" or _is_unexplained(o) for o in outcomes):
    sys.exit(1)


def markdown(outcomes: Iterable[Outcome]) -> str:
  """The table, what went unnoticed and why."""
  outcomes = list(outcomes)
  kinds = ("noticed", "refused", "unnoticed", "crashed")
  head = ("edit", "forger", "tried", *kinds)
  lines = [_ABOUT, _line(head), _line(["---"] * len(head))]
  for edit in (*EDITS, "all"):
    for forger in FORGERS:
      found = [
        o for o in outcomes if o.forger == forger and edit in (o.edit, "all")
      ]
      counts = collections.Counter(o.kind for o in found)
      numbers = [len(found), *(counts[kind] for kind in kinds)]
      lines.append(_line([edit, forger, *numbers]))
  unnoticed = collections.Counter(
    (o.reason or f"**not explained**: {o.edit}, {o.where}", o.forger)
    for o in outcomes
    if o.kind == "unnoticed"
  )
  lines += ["", "Unnoticed:", ""]
  lines += [
    f"- {count} by who {forger}: {reason}."
    for (reason, forger), count in sorted(unnoticed.items())
  ]
  lines += [
    f"- **crashed**: {o.edit}, {o.where}: {o.why}."
    for o in outcomes
    if o.kind == "crashed"
  ]
  return "\n".join(lines) + "\n"


def _is_unexplained(outcome):
  return outcome.kind == "unnoticed" and outcome.reason is None


def _line(cells):
  return f"| {' | '.join(map(str, cells))} |"


def _make(run):
  command = [sys.executable, "-m", "experiments.decentralized"]
  subprocess.run(
    [*command, f"--workdir={run}", *_SMALL],
    check=True,
    stdout=subprocess.DEVNULL,
  )


def _all(run, edits, seed) -> Iterator[Outcome]:
  """Every edit, over all cores."""
  cores = len(os.sched_getaffinity(0))
  context = multiprocessing.get_context("spawn")
  shares = [
    (run, run.with_name(f"copy{core}"), range(core, edits, cores), seed)
    for core in range(cores)
  ]
  with context.Pool(cores) as pool:
    for share in pool.imap(_share, shares):
      yield from share


def _share(arguments):
  run, copy, indices, seed = arguments
  flags.FLAGS(["forgeries"])
  jax.config.update("jax_compilation_cache_dir", str(run.with_name("compiled")))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  signal.signal(signal.SIGALRM, _too_long)
  verify_certificate.EXPERIMENTS["decentralized"] = _READER
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
    found = list(verify_certificate.problems(copy))
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


if __name__ == "__main__":
  app.run(main)
