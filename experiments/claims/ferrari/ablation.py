"""Claims 3 and 4 of Ferrari: what each part of its loss is for.

Each variant runs without a stopping rule, to where the attack first fails.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments.feature.study import Study
from experiments.feature.tasks import Task
from experiments.run import tables
from experiments.run.study import Case
from junlearn.loop import NonFiniteError
from junlearn.transform import Request

EVERY = 10  # steps between two looks, about an epoch
ATTACK = 0.1  # attack success at which the variants are compared
RATE = 1e-3
_NEVER = {"sensitivity_fraction": None, "target": None}
# Variant -> options of Ferrari.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
  "both branches": {},
  "perturbed branch stopped": {"stop_gradient": "perturbed"},
  "clean branch stopped": {"stop_gradient": "clean"},
  "not normalized": {"normalize": False},
}


class Point(NamedTuple):
  """Where a variant stands when the attack first fails; NaN if it never does.

  Attributes:
    steps: so far.
    attack_success: there.
    test_accuracy: there.
    sensitivity: over that of the start.
    drop: points of accuracy lost.
    roughness: of the loss, see `experiments.feature.study`.
  """

  steps: float = math.nan
  attack_success: float = math.nan
  test_accuracy: float = math.nan
  sensitivity: float = math.nan
  drop: float = math.nan
  roughness: float = math.nan


def run(
  study: Study, cases: Sequence[Case[Task]]
) -> tuple[list[tuple], list[str]]:
  """The claims, and the lines of the table behind them."""
  points = {
    name: [_point(study, case, name) for case in cases] for name in VARIANTS
  }
  return [*_branches(points), *_denominator(points)], _table(points)


def _point(study: Study, case: Case[Task], name: str) -> Point:
  rate, options = RATE, VARIANTS[name]
  if not options.get("normalize", True):
    rate = _matched(study, case, rate, options)

  def evaluate(params):
    outcome = case.original._replace(params=params)
    metrics = study.audit("ferrari", outcome, case).metrics
    shown = ("attack_success", "test_accuracy", "sensitivity")
    return tuple(metrics[metric] for metric in shown)

  try:
    outcome = study.apply(
      "ferrari",
      case,
      rate,
      name=f"ablation/{name}-{RATE:g}",
      evaluate=evaluate,
      **_NEVER,
      **options,
    )
  except NonFiniteError:
    return Point()
  curve = np.asarray(outcome.curve)
  failed = np.flatnonzero(curve[:, 1] < ATTACK)
  if not failed.size:
    return Point(roughness=outcome.notes["roughness"])
  steps, attack, accuracy, left = curve[failed[0]]
  return Point(
    steps,
    attack,
    accuracy,
    left / curve[0, 3],
    100 * (curve[0, 2] - accuracy),
    outcome.notes["roughness"],
  )


def _matched(study, case, rate, options) -> float:
  """The rate at which the first step moves the params as far as `rate` does."""

  def moved(**options):
    transform = study.unlearner(
      "ferrari", rate, num_steps=1, loop=None, **options
    )
    forget = {k: case.task.forget[k] for k in ("input", "mask")}
    before = case.original.params
    after = transform(
      jax.random.key(case.seed), before, Request(forget, None)
    ).params
    return float(optax.tree.norm(optax.tree.sub(after, before)))

  return rate * moved() / moved(**options)


def _branches(points: Mapping[str, Sequence[Point]]):
  """Claim 3: with the perturbed branch stopped, utility goes first."""
  stopped = points["perturbed branch stopped"]
  accuracy = np.median([point.test_accuracy for point in stopped])
  moved = np.median([abs(point.sensitivity - 1) for point in stopped])
  return [
    ("3a", "clean accuracy when the attack fails, perturbed branch stopped",
     "<=", 0.75, float(accuracy)),
    ("3b", "fraction by which sensitivity has moved by then", "<", 0.15,
     float(moved)),
  ]  # fmt: skip


def _denominator(points: Mapping[str, Sequence[Point]]):
  """Claim 4: without the denominator, utility and a steady loss suffer."""
  pairs = list(
    zip(points["not normalized"], points["both branches"], strict=True)
  )
  drop = np.median([without.drop - full.drop for without, full in pairs])
  rough = np.median(
    [without.roughness / full.roughness for without, full in pairs]
  )
  return [
    ("4a", "accuracy lost when the attack fails, more without denominator "
     "(points)", ">", 0, float(drop)),
    ("4b", "fluctuation of the loss, without / with denominator", ">", 1,
     float(rough)),
  ]  # fmt: skip


def _table(points: Mapping[str, Sequence[Point]]) -> list[str]:
  """Markdown: median over the seeds in which the attack failed."""
  lines = tables.section(
    f"ablations: where attack success first is below {ATTACK:g}, looked at "
    f"every {EVERY} steps; medians over the seeds in which it is",
    ["variant", "seeds", *Point._fields],
  )
  for name, group in points.items():
    values = np.array(group)
    values = values[~np.isnan(values[:, 0])]
    cells = (
      [f"{x:.3g}" for x in np.median(values, axis=0)] if len(values) else []
    )
    lines.append(tables.row([name, f"{len(values)} of {len(group)}", *cells]))
  return [*lines, ""]
