"""Random forgeries of a certified run, and which of them the verifier finds.

    python -m experiments.bench.forgeries [--run=DIR] [--edits=N] [--out=FILE]

Each edit is made in a copy of the run, by one of three forgers: half of them
only edit, a quarter makes all hashes agree again, and a quarter signs the
ledger anew too, with the run's own key. Nobody kept its head elsewhere. Exits
with 1 if an edit goes unnoticed that is not known to, or if the verifier ends
in anything but sentences.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from experiments.bench import page
from experiments.bench.forgeries import outcomes, trials
from experiments.bench.forgeries.outcomes import Outcome

_RUN = flags.DEFINE_string(
  "run",
  None,
  "Folder of a finished run of experiments.decentralized; it is copied "
  "(default: a small one that is made).",
)
_EDITS = page.integer("edits", 1000, "Edits to try.")
_SEED = page.integer("seed", 0, "Seed of the edits.", least=0)

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

_ABOUT = """Random edits of a certified run, and what the verifier said of each:
something that does not agree, or that the folder cannot be read. One forger
only edits, one makes all hashes agree again, one signs the ledger anew too,
with the run's own key; nobody kept its head elsewhere, which would find the
last.
"""


def _measure() -> Iterator[str]:
  """Tries the edits and tells what came of them."""
  with tempfile.TemporaryDirectory() as name:
    run = Path(name) / "run"
    if _RUN.value is None:
      _make(run)
    else:
      shutil.copytree(_RUN.value, run)
    found = _all(run, _EDITS.value, _SEED.value)
  yield _ABOUT
  yield from outcomes.lines(found)
  if wrong := sum(outcome.is_wrong for outcome in found):
    raise ValueError(
      f"{wrong} edits ended in a crash, or went unnoticed that must not."
    )


def _make(run: Path) -> None:
  command = [sys.executable, "-m", "experiments.decentralized"]
  subprocess.run(
    [*command, f"--workdir={run}", *_SMALL],
    check=True,
    stdout=subprocess.DEVNULL,
  )


def _all(run: Path, edits: int, seed: int) -> list[Outcome]:
  """Every edit, over all cores."""
  cores = len(os.sched_getaffinity(0))
  parts = [
    (run, run.with_name(f"copy{core}"), range(core, edits, cores), seed)
    for core in range(cores)
  ]
  with multiprocessing.get_context("spawn").Pool(cores) as pool:
    return [o for found in pool.starmap(trials.some, parts) for o in found]


if __name__ == "__main__":
  page.start("Forgeries", _measure)
