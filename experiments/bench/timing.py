"""Sides of a comparison, timed in turn, and what they come to."""

import statistics
import time
from collections.abc import (
  Callable,
  Hashable,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any, NamedTuple

import jax

from experiments.run import tables


class Comparison(NamedTuple):
  """One line of the table.

  Attributes:
    work: what was timed.
    ours: the side that must be faster.
    theirs: the side that it is compared with.
    seconds: `(ours, theirs)` of every repeat, taken in turn.
    threshold: the ratio of times, theirs to ours, to be shown.
    first: seconds of our first call less the median, i.e. compilation.
    difference: largest difference of the results (losses of all steps, or
      labels and distances), relative to one plus the largest of them.
  """

  work: str
  ours: str
  theirs: str
  seconds: Sequence[tuple[float, float]]
  threshold: float
  first: float
  difference: float


class Ratio(NamedTuple):
  """Times of one side over those of another, repeat by repeat."""

  median: float
  low: float
  high: float

  @property
  def cells(self) -> tuple[str, str]:
    """The median, and the range."""
    return f"{self.median:.2f}", f"{self.low:.2f} to {self.high:.2f}"


class Program(NamedTuple):
  """A function of some arguments, compiled.

  Attributes:
    run: calls it and waits for what it returns.
    seconds: that its compilation took.
    memory: bytes that it needs.
  """

  run: Callable[[], Any]
  seconds: float
  memory: int


def seconds(work: Callable[[], object]) -> float:
  """Wall-clock seconds of one call; the call must wait for its result."""
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def alternate(
  sides: Mapping[Hashable, Callable[[], object]], repeats: int
) -> dict[Hashable, list[float]]:
  """Times of every side, taken in turn (A B A B ...)."""
  times = {name: [] for name in sides}
  for _ in range(repeats):
    for name, work in sides.items():
      times[name].append(seconds(work))
  return times


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
  """The ratio of two sides that were timed in turn."""
  values = [a / b for a, b in zip(above, below, strict=True)]
  return Ratio(statistics.median(values), min(values), max(values))


def compiled(function: Callable[..., Any], *arguments: Any) -> Program:
  """The function of these arguments, compiled and run once."""
  start = time.perf_counter()
  program = jax.jit(function).lower(*arguments).compile()
  taken = time.perf_counter() - start

  def run():
    return jax.block_until_ready(program(*arguments))

  run()
  return Program(run, taken, memory(program)[0])


def memory(program: Any) -> tuple[int, int]:
  """Bytes that a compiled program needs at once, and of them scratch.

  An argument that is given away counts once.
  """
  found = program.memory_analysis()
  kept = found.argument_size_in_bytes + found.output_size_in_bytes
  scratch = found.temp_size_in_bytes
  return kept - found.alias_size_in_bytes + scratch, scratch


def table(
  comparisons: Iterable[Comparison],
  sides: tuple[str, str] = ("junlearn", "PyTorch"),
) -> Iterator[str]:
  """Markdown: a row for each comparison, under the names of the sides."""
  yield from tables.header([
    *("work", *sides, *(f"{side} s" for side in sides), "ratio"),
    "min to max", "at least", "", "compile s", "difference",
  ])  # fmt: skip
  yield from map(_row, comparisons)


def _row(each: Comparison) -> str:
  ours, theirs = zip(*each.seconds, strict=True)
  faster = ratio(theirs, ours)
  return tables.row(
    [
      *(each.work, each.ours, each.theirs),
      *(f"{statistics.median(side):.3f}" for side in (ours, theirs)),
      *(*faster.cells, f"{each.threshold:.1f}"),
      tables.verdict(faster.median >= each.threshold),
      *(f"{each.first:.1f}", f"{each.difference:.0e}"),
    ]
  )
