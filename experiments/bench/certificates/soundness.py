"""Whether anything is released that must not be, in draws at random."""

import collections
from collections.abc import Iterator

import numpy as np

from experiments.bench.certificates.broken import breakages
from experiments.bench.certificates.draws import Draw, attempt, holds
from experiments.bench.certificates.programs import GRAPHS, HEADS, Program
from experiments.run.tables import header, row, verdict

_BROKEN_FRACTION = 0.35
_NAMES = {
  "single": "one model",
  "stacked": "stacked clients",
  "consensus": "consensus",
}


def tables(seed: int, num_draws: int, num_programs: int) -> Iterator[str]:
  """Two tables: of sound draws and of broken ones."""
  rng = np.random.default_rng([seed, 0])
  programs = [_program(rng) for _ in range(num_programs)]
  sound, broken = (collections.defaultdict(list) for _ in range(2))
  for index in range(num_draws):
    program = programs[index % len(programs)]
    draw = _draw(rng, program)
    outcome = attempt(program, draw)
    if draw.broken:
      broken[draw.broken].append(holds(outcome, draw))
    else:
      steps = ", several local steps" if program.local_steps > 1 else ""
      name = _NAMES[program.form] + steps
      sound[name].append((outcome, holds(outcome, draw)))
  yield from header([
    "sound draws", "drawn", "released", "not reached", "too little noise",
    "violations", "largest distance / bound", "",
  ])  # fmt: skip
  for name, pairs in sorted(sound.items()):
    kinds = collections.Counter(outcome.kind for outcome, _ in pairs)
    wrong = sum(not held for _, held in pairs)
    ratios = [
      outcome.distance / outcome.bound
      for outcome, _ in pairs
      if outcome.kind == "released"
    ]
    yield row(
      [
        *(name, len(pairs), kinds["released"], kinds["not reached"]),
        *(kinds["refused"], wrong, f"{max(ratios, default=0):.12f}"),
        verdict(not wrong),
      ]
    )
  yield ""
  yield from header(["broken draws", "drawn", "refused for it", "not", ""])
  for name, held in sorted(broken.items()):
    wrong = len(held) - sum(held)
    yield row([name, len(held), sum(held), wrong, verdict(not wrong)])


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
  broken = rng.random() < _BROKEN_FRACTION
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
