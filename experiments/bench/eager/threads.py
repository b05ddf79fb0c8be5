"""JAX against PyTorch, whose number of threads is the better of two."""

import functools
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from experiments.bench import timing

_CORES = len(os.sched_getaffinity(0))
COUNTS = sorted({1, _CORES})


def limited(count: int, work: Callable[[], Any]) -> Any:
  """What the work gives, done by so many threads of PyTorch."""
  torch.set_num_threads(count)
  return work()


def fastest(times: Iterable[Sequence[float]]) -> list[float]:
  """The shortest time of several sides, repeat by repeat."""
  return [min(taken) for taken in zip(*times, strict=True)]


def compare(
  work: str,
  ours: Mapping[str, Callable[[], np.ndarray]],
  theirs: Mapping[str, Callable[[], np.ndarray]],
  *,
  repeats: int,
  threshold: float,
) -> Iterator[timing.Comparison]:
  """Checks that all sides agree, then times them in turn.

  Of their forms that share a name before the comma, the one that is fastest
  at a trial is timed. One thread and all cores are both timed at every repeat,
  and the faster counts, so that a busy machine does not hold PyTorch up.
  """
  first, results = {}, {}
  for name, side in ours.items():
    first[name] = timing.seconds(
      lambda n=name, s=side: results.update({n: s()})
    )
  trials = {}
  for name, side in theirs.items():
    results[name] = limited(_CORES, side)
    for threads in COUNTS:
      run = functools.partial(limited, threads, side)
      trial = (timing.seconds(run), name, run)
      trials.setdefault((name.split(",")[0], threads), []).append(trial)
  best = {k: min(trial, key=lambda t: t[0]) for k, trial in trials.items()}
  times = timing.alternate(
    {**ours, **{key: run for key, (_, _, run) in best.items()}}, repeats
  )
  for our in ours:
    for form in dict.fromkeys(form for form, _ in best):
      count = min(COUNTS, key=lambda c: statistics.median(times[form, c]))
      _, name, _ = best[form, count]
      taken = fastest(times[form, c] for c in COUNTS)
      scale = 1 + np.abs(results[name]).max()
      yield timing.Comparison(
        work,
        our,
        f"{name}, {count} thread{'s' * (count > 1)}",
        list(zip(times[our], taken, strict=True)),
        threshold,
        first[our] - statistics.median(times[our]),
        float(np.abs(results[our] - results[name]).max() / scale),
      )
