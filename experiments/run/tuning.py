"""Hyper-parameters chosen from a grid, on tasks of their own."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from junlearn.loop import NonFiniteError

H = TypeVar("H")
C = TypeVar("C")


def scores(
  score: Callable[[H, C], float], grid: Iterable[H], cases: Sequence[C]
) -> dict[H, float]:
  """The mean score of every candidate; inf where a training diverged.

  Args:
    score: `(candidate, case) -> distance`, the lower the better.
    grid: the candidates.
    cases: on which all of them are tried; none of those that are reported.
  """

  def mean(candidate):
    try:
      return sum(score(candidate, case) for case in cases) / len(cases)
    except NonFiniteError:
      return math.inf

  return {candidate: mean(candidate) for candidate in grid}


def best(
  score: Callable[[H, C], float], grid: Iterable[H], cases: Sequence[C]
) -> H:
  """The candidate of the least mean score, the first of equally good ones."""
  found = scores(score, grid, cases)
  return min(found, key=found.__getitem__)
