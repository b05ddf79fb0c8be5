"""Time and memory, beside those of retraining."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from junlearn.report.blocks import Cell, Table
from junlearn.report.metric import MISSING, show, with_spread
from junlearn.report.summary import PerSeed, by_method, quantity

_UNITS = ((7200, 3600, "h"), (120, 60, "min"), (1, 1, "s"), (0, 1e-3, "ms"))
_NOTHING = PerSeed({})


def duration(seconds: PerSeed) -> str:
  """Mean and spread in the unit that suits the mean."""
  if not seconds.num_seeds:
    return MISSING
  unit, name = next(
    (unit, name) for least, unit, name in _UNITS if seconds.mean >= least
  )
  digits = 0 if name == "ms" else 1
  number = with_spread(seconds.mean / unit, seconds.std / unit, digits)
  return f"{number} {name}"


def _memory(size: PerSeed) -> str:
  if not size.num_seeds:
    return MISSING
  power = min(int(math.log2(max(size.mean, 1.0)) // 10), 4)
  unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
  return f"{show(size.mean / 1024**power, 1 if power else 0)} {unit}"


def _plus(a: PerSeed, b: PerSeed) -> PerSeed:
  common = a.by_seed.keys() & b.by_seed.keys()
  return PerSeed({s: a.by_seed[s] + b.by_seed[s] for s in sorted(common)})


def speed_up(retrain: PerSeed, unlearn: PerSeed) -> str:
  """Total time of retraining over that of unlearning, over common seeds."""
  common = retrain.by_seed.keys() & unlearn.by_seed.keys()
  ours = sum(unlearn.by_seed[seed] for seed in common)
  theirs = sum(retrain.by_seed[seed] for seed in common)
  if not common or ours <= 0:
    return MISSING
  factor = theirs / ours
  return f"{show(factor, 0 if factor >= 100 else 1)}\N{MULTIPLICATION SIGN}"


def cost_table(rows: Iterable[Mapping[str, Any]]) -> Table:
  """One row per method.

  The time of `retrain` is its row's `seconds["retrain"]`, that of a method
  `seconds["unlearn"]`, both without compilation, which is `compile`.
  """
  runs = by_method(rows)
  retrain = quantity(runs.get("retrain", {}), "seconds", "retrain")
  retrain_compile = quantity(runs.get("retrain", {}), "seconds", "compile")
  body = []
  for method, own in runs.items():
    if method == "original":
      continue
    work = "retrain" if method == "retrain" else "unlearn"
    seconds = quantity(own, "seconds", work)
    compiling = quantity(own, "seconds", "compile")
    cells = (
      method,
      duration(seconds),
      duration(compiling),
      speed_up(retrain, seconds),
      speed_up(_plus(retrain, retrain_compile), _plus(seconds, compiling)),
      duration(quantity(own, "seconds", "audit")),
      _memory(quantity(own, "peak_memory_bytes")),
    )
    body.append([Cell(cell) for cell in cells])
  return Table(
    "Mean and standard deviation over seeds. The speed-up is the time of "
    "retraining over the time of unlearning, without and with compilation; "
    "the audit is in neither.",
    (
      "Method",
      "Time",
      "Compilation",
      "Speed-up",
      "With compilation",
      "Audit",
      "Peak memory",
    ),
    body,
    references=int("retrain" in runs),
  )
