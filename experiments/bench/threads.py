"""JAX against PyTorch, whose number of threads is the better of two."""

import functools
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from experiments.bench import timing

_CORES = len(os.sched_getaffinity(0))


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
  counts = sorted({1, _CORES})
  trials = {}
  for name, side in theirs.items():
    results[name] = _with_threads(_CORES, side)
    for threads in counts:
      run = functools.partial(_with_threads, threads, side)
      trial = (timing.seconds(run), name, run)
      trials.setdefault((name.split(",")[0], threads), []).append(trial)
  best = {k: min(trial, key=lambda t: t[0]) for k, trial in trials.items()}
  times = timing.alternate(
    {**ours, **{key: run for key, (_, _, run) in best.items()}}, repeats
  )
  for our in ours:
    for form in dict.fromkeys(form for form, _ in best):
      fastest = min(counts, key=lambda c: statistics.median(times[form, c]))
      _, name, _ = best[form, fastest]
      taken = zip(*(times[form, c] for c in counts), strict=True)
      scale = 1 + np.abs(results[name]).max()
      yield timing.Comparison(
        work,
        our,
        f"{name}, {fastest} thread{'s' * (fastest > 1)}",
        list(zip(times[our], map(min, taken), strict=True)),
        threshold,
        first[our] - statistics.median(times[our]),
        float(np.abs(results[our] - results[name]).max() / scale),
      )


def _with_threads(threads: int, work: Callable[[], Any]) -> Any:
  torch.set_num_threads(threads)
  return work()
