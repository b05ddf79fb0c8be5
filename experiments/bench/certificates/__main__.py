"""Whether certificates hold: releases drawn at random, and the best tests.

    python -m experiments.bench.certificates [--draws=1000] [--out=FILE]

Three questions, with all noise and all draws from one seed. Are the params
before noise ever further from exact retraining than `certified` measured, or is
anything released that must be refused? Does the best test between the worst
release and retraining's find more than was claimed? And would both have found
a mechanism that is broken?
"""

from collections.abc import Iterator

import jax

from experiments.bench import page
from experiments.bench.certificates import detection, soundness

_DRAWS = page.integer("draws", 1000, "Releases that are asked for.")
_PROGRAMS = page.integer(
  "programs", 40, "Models and networks, compiled once each."
)
_RELEASES = page.integer(
  "releases", 400_000, "Releases on each side of a test.", least=1000
)
_SAME = page.integer(
  "same", 50, "Releases that are compared bit by bit in each test."
)
_SEED = page.integer("seed", 0, "Seed of all noise and of all draws.", least=0)


def _measure() -> Iterator[str]:
  """All tables, in double precision."""
  jax.config.update("jax_enable_x64", True)
  seed, tests = _SEED.value, (_SEED.value, _RELEASES.value)
  for table in (
    soundness.tables(seed, _DRAWS.value, _PROGRAMS.value),
    detection.releases(*tests, same=_SAME.value),
    detection.controls(*tests),
    detection.separate_draws(),
  ):
    yield from table
    yield ""
  yield f"The seed was {seed}."


if __name__ == "__main__":
  page.start("Whether certificates hold", _measure)
