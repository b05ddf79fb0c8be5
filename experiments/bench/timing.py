"""Two or more sides of one comparison, timed in turn, and the table."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple


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

  @property
  def ratios(self) -> list[float]:
    """How many times faster ours was, repeat by repeat."""
    return [theirs / ours for ours, theirs in self.seconds]

  @property
  def passed(self) -> bool:
    """Whether the median ratio reaches the threshold."""
    return statistics.median(self.ratios) >= self.threshold


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


def markdown(
  comparisons: Sequence[Comparison],
  sides: tuple[str, str] = ("junlearn", "PyTorch"),
) -> str:
  """The comparisons as a table, one row each, under the names of the sides."""
  header = (
    *("work", *sides, *(f"{side} s" for side in sides), "ratio", "min to max"),
    *("at least", "", "compile s", "difference"),
  )
  rows = [header, *map(_row, comparisons)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    "| "
    + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
    + " |"
    for row in rows
  ]
  rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
  return "\n".join([lines[0], rule, *lines[1:]])


def _row(each: Comparison) -> tuple[str, ...]:
  ours, theirs = (
    statistics.median(side) for side in zip(*each.seconds, strict=True)
  )
  ratios = each.ratios
  return (
    each.work,
    each.ours,
    each.theirs,
    f"{ours:.3f}",
    f"{theirs:.3f}",
    f"{statistics.median(ratios):.2f}",
    f"{min(ratios):.2f} to {max(ratios):.2f}",
    f"{each.threshold:.1f}",
    "passed" if each.passed else "failed",
    f"{each.first:.1f}",
    f"{each.difference:.0e}",
  )
