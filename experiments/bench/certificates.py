"""Whether certificates hold: releases drawn at random, and the best tests.

    python -m experiments.bench.certificates [--draws=1000] [--out=FILE]

Three questions, with all noise and all draws from one seed. Are the params
before noise ever further from exact retraining than `certified` measured, or is
anything released that must be refused? Does the best test between the worst
release and retraining's find more than was claimed? And would both have found
a mechanism that is broken?
"""

import collections
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from experiments.bench import certificates_audit as audits
from experiments.bench.certificates_broken import breakages
from experiments.bench.certificates_draws import Draw, attempt, holds
from experiments.bench.certificates_programs import GRAPHS, HEADS, Program
from experiments.bench.conditions import conditions

_DRAWS = flags.DEFINE_integer(
  "draws", 1000, "Releases that are asked for.", lower_bound=1
)
_PROGRAMS = flags.DEFINE_integer(
  "programs", 40, "Models and networks, compiled once each.", lower_bound=1
)
_RELEASES = flags.DEFINE_integer(
  "releases", 400_000, "Releases a side in each test.", lower_bound=1000
)
_SAME = flags.DEFINE_integer(
  "same", 50, "Releases compared bit by bit, each test.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Of everything.", lower_bound=0)
_OUT = flags.DEFINE_string("out", None, "Write the tables here, as Markdown.")

_CLAIMS = ((1.0, 1e-2), (3.0, 1e-2))
_FACTOR = 1.5  # that the epsilon found may be below the one claimed
_BROKEN_SHARE = 0.35
_NAMES = {
  "single": "one model",
  "stacked": "stacked clients",
  "consensus": "consensus",
}


def main(arguments: Sequence[str]) -> None:
  """Measures, prints and, if asked, writes the tables."""
  if len(arguments) > 1:
    sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
  jax.config.update("jax_enable_x64", True)
  before = os.getloadavg()
  lines = []
  for table in (_soundness(), _audits(), _controls(), _old()):
    for line in itertools.chain(table, [""]):
      lines.append(line)
      print(line, flush=True)
  text = "\n".join([*lines, conditions(before), f"- seed: {_SEED.value}"])
  if _OUT.value:
    Path(_OUT.value).write_text(f"# Whether certificates hold\n\n{text}\n")


def _soundness() -> Iterator[str]:
  """Two tables: of sound draws and of broken ones."""
  rng = np.random.default_rng([_SEED.value, 0])
  programs = [_program(rng) for _ in range(_PROGRAMS.value)]
  sound, broken = (collections.defaultdict(list) for _ in range(2))
  for index in range(_DRAWS.value):
    program = programs[index % len(programs)]
    draw = _draw(rng, program)
    outcome = attempt(program, draw)
    if draw.broken:
      broken[draw.broken].append(holds(outcome, draw))
    else:
      steps = ", several local steps" if program.local_steps > 1 else ""
      name = _NAMES[program.form] + steps
      sound[name].append((outcome, holds(outcome, draw)))
  yield _line(
    *("sound draws", "drawn", "released", "not reached", "too little noise"),
    *("violations", "largest distance / bound", ""),
  )
  yield "|---" * 8 + "|"
  for name, pairs in sorted(sound.items()):
    kinds = collections.Counter(outcome.kind for outcome, _ in pairs)
    wrong = sum(not held for _, held in pairs)
    ratios = [
      outcome.distance / outcome.bound
      for outcome, _ in pairs
      if outcome.kind == "released"
    ]
    yield _line(
      *(name, len(pairs), kinds["released"], kinds["not reached"]),
      *(kinds["refused"], wrong, f"{max(ratios, default=0):.12f}"),
      _verdict(not wrong),
    )
  yield ""
  yield _line("broken draws", "drawn", "refused for it", "not", "")
  yield "|---" * 5 + "|"
  for name, held in sorted(broken.items()):
    wrong = len(held) - sum(held)
    yield _line(name, len(held), sum(held), wrong, _verdict(not wrong))


def _program(rng: np.random.Generator) -> Program:
  """Squared losses are rare: a user's loss is tried out anew each time."""
  form = str(rng.choice(list(_NAMES)))
  heads = [name for name in HEADS if name != "squared loss"]
  head = "squared loss" if rng.random() < 0.08 else str(rng.choice(heads))
  local_steps = 1
  if form != "single" and head in ("dense", "dense, no bias", "convolution"):
    local_steps = int(rng.choice([1, 2, 3, 4]))
  return Program(
    head,
    2 if head == "opposite scores" else int(rng.integers(2, 6)),
    float(10 ** rng.uniform(-3, 0)),
    form,
    str(rng.choice(list(GRAPHS))),
    str(rng.choice(["uniform", "sample"])),
    local_steps,
  )


def _draw(rng: np.random.Generator, program: Program) -> Draw:
  largest = 0 if program.local_steps > 1 else 1
  near = 10 ** rng.uniform(-8, 0)
  broken = rng.random() < _BROKEN_SHARE
  return Draw(
    seed=int(rng.integers(2**31)),
    scale=float(10 ** rng.uniform(-2, largest)),
    present=int(rng.integers(3, 41)),
    max_distance=float(10 ** rng.uniform(-8, 0)),
    offset=float(rng.choice([0, near, near, 1 - 1e-6, 1 + 1e-6, 10])),
    direction=str(rng.choice(["random", "flat", "flat", "origin"])),
    fallback=bool(rng.random() < 0.2),
    broken=str(rng.choice(breakages(program))) if broken else "",
  )


def _audits() -> Iterator[str]:
  """The table of likelihood-ratio tests."""
  yield _line(
    *("worst release against retraining's", "epsilon", "delta"),
    *("bound / limit", "delta found", "at least", "epsilon found", "at least"),
    *("same bits", ""),
  )
  yield "|---" * 10 + "|"
  for index, (name, make) in enumerate(audits.instances().items()):
    instance = make()
    for epsilon, delta in _CLAIMS:
      seeds = [_SEED.value, 1, index, int(epsilon)]
      found = audits.audit(instance, epsilon, delta, _RELEASES.value, seeds)
      terms = audits.terms(instance, instance.worst, epsilon, delta)
      same = audits.same_releases(instance, epsilon, delta, _SAME.value, seeds)
      yield _line(
        *(name, epsilon, delta),
        f"{terms.measured.result / terms.max_distance:.6f}",
        *_cells(found),
        f"{_SAME.value} of {_SAME.value}" if same else "differ",
        _verdict(
          same
          and found.least_delta <= delta
          and found.least_epsilon <= epsilon <= _FACTOR * found.epsilon
        ),
      )


def _controls() -> Iterator[str]:
  """The table of mechanisms that must be found out."""
  yield _line(
    *("control, must be found above", "epsilon", "delta"),
    *("delta found", "at least", "epsilon found", "at least", ""),
  )
  yield "|---" * 8 + "|"
  controls: list[tuple[str, Callable[[], audits.Instance], dict]] = [
    (f"{name}: half the noise", make, {"factor": 0.5})
    for name, make in audits.instances().items()
  ]
  for name, make in audits.instances().items():
    if name.startswith("consensus"):
      controls.append((f"{name}: a draw a row", make, {"norm": "joint"}))
  for index, (name, make, options) in enumerate(controls):
    instance = make()
    for epsilon, delta in _CLAIMS:
      seeds = [_SEED.value, 2, index, int(epsilon)]
      found = audits.audit(
        instance, epsilon, delta, _RELEASES.value, seeds, **options
      )
      above = found.least_delta > delta and found.least_epsilon > epsilon
      yield _line(name, epsilon, delta, *_cells(found), _verdict(above))


def _old() -> Iterator[str]:
  """What a consensus with a draw a row is worth, exactly."""
  yield _line(
    *("clients of a consensus", "epsilon claimed", "delta"),
    *("epsilon, one draw for all rows", "epsilon, a draw a row"),
  )
  yield "|---" * 5 + "|"
  for clients in (2, 4, 8, 16, 64):
    exact = (
      audits.epsilon_of_separate_draws(n, 1.0, 1e-5) for n in (1, clients)
    )
    yield _line(clients, 1.0, 1e-5, *(f"{value:.4f}" for value in exact))


def _cells(found: audits.Finding) -> tuple[str, ...]:
  return (
    f"{found.delta:.5f}",
    f"{found.least_delta:.5f}",
    f"{found.epsilon:.3f}",
    f"{found.least_epsilon:.3f}",
  )


def _verdict(passed: bool) -> str:
  return "passed" if passed else "failed"


def _line(*cells: object) -> str:
  return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
  app.run(main)
