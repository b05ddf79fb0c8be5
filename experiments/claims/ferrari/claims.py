"""Claims of Ferrari (arXiv 2405.17462): a feature forgotten by one client.

Digits and a table of patients that scikit-learn embeds, 5 clients, federated
averaging. Numbers are medians over seeds; the tables show the worst seed too.
Learning rates are chosen on seeds of their own, from one grid for all methods,
by the mean distance to retraining: an oracle.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from absl import flags

from experiments.feature.study import METHODS, SCENARIOS, Study
from experiments.feature.tasks import Recipe, Task
from experiments.run.claim import Claim
from experiments.run.session import Outcome, Session
from experiments.run.table import row
from experiments.run.workdir import Workdir
from junlearn.data import load
from junlearn.loop import NonFiniteError
from junlearn.transform import Request

_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
_TUNING_SEEDS = (1000, 1001, 1002, 1003)
_EVERY = 10  # steps between two looks in the ablations, about an epoch
_ABLATION_RATE = 1e-3
_ATTACK = 0.1  # attack success at which the ablations are compared
_SHARED = "ferrari, shared noise"
_NEVER = {"sensitivity_share": None, "target": None}
# Ablation -> options of Ferrari.
_ABLATIONS = {
  "both branches": {},
  "perturbed branch stopped": {"stop_gradient": "perturbed"},
  "clean branch stopped": {"stop_gradient": "clean"},
  "not normalised": {"normalize": False},
}
# Lower is worse for these, higher for all others.
_HIGH = (
  "test_accuracy", "recovered", "unbiased_accuracy", "biased_accuracy",
  "other_sensitivity",
)  # fmt: skip


class _Case(NamedTuple):
  """One seed: its task, both references, and their metrics."""

  seed: int
  task: Task
  original: Outcome
  retrained: Outcome
  before: dict[str, float]
  target: dict[str, float]


class _Point(NamedTuple):
  """Where an ablation stands when the attack first fails; NaN if it never does.

  `sensitivity` is over that of the start, `drop` the points of accuracy lost,
  `roughness` that of the loss, see `feature_study`.
  """

  steps: float
  attack_success: float
  test_accuracy: float
  sensitivity: float
  drop: float
  roughness: float


# Method -> the metrics of each seed.
_Found = Mapping[str, Sequence[Mapping[str, float]]]


def run(
  workdir: Workdir, seeds: int
) -> Iterator[tuple[list[Claim], list[str]]]:
  """For each scenario, its claims and the table behind them."""
  recipe = Recipe()
  dataset = load("digits", data_dir=flags.FLAGS.data_dir)
  for name in SCENARIOS:
    with Session(
      workdir,
      _total(recipe, name, seeds),
      folder=f"ferrari/{name}",
      points=recipe.unlearn_steps // _EVERY,
    ) as session:
      study = Study(name, dataset, recipe, session)
      rates = _tune(study, [_case(study, seed) for seed in _TUNING_SEEDS])
      cases = [_case(study, seed) for seed in range(seeds)]
      found, outcomes = _compare(study, cases, rates)
      lines = _table(name, found, rates)
      if name == "backdoor":
        measured = [*_backdoor(found), *_sensitivity(found)]
        points = _ablate(study, cases)
        measured += [*_branches(points), *_denominator(points)]
        lines += _ablation_table(points)
      elif name == "sensitive":
        measured = _sensitive(found)
      else:
        measured = _bias(cases, found, outcomes)
    data = "diabetes" if name == "sensitive" else "digits"
    yield [Claim("ferrari", n, data, *rest) for n, *rest in measured], lines


def _case(study: Study, seed: int) -> _Case:
  task = study.task(seed)
  original = study.train("original", seed, task)
  retrained = study.train("retrain", seed, task)
  return _Case(
    seed,
    task,
    original,
    retrained,
    before=study.audit(original.params, task),
    target=study.audit(retrained.params, task, blind=True),
  )


def _unlearn(study: Study, case: _Case, method: str, rate: float) -> Outcome:
  arguments = (
    f"{method}-{rate:g}", case.seed, case.task, case.original.params, rate
  )  # fmt: skip
  if method == "finetune":
    return study.finetune(*arguments)
  options = {"shared_axes": (0, 1)} if method == _SHARED else {}
  return study.ferrari(*arguments, **options)


def _methods(study: Study) -> tuple[str, ...]:
  """Those of the experiment, and a variant of Ferrari for colours."""
  return (*METHODS, _SHARED) if study.name == "bias" else METHODS


def _tune(study: Study, cases: Sequence[_Case]) -> dict[str, float]:
  """The rate of each method with the least mean distance to retraining."""

  def distance(method, rate):
    total = 0.0
    for case in cases:
      try:
        outcome = _unlearn(study, case, method, rate)
      except NonFiniteError:
        return math.inf
      metrics = study.audit(outcome.params, case.task)
      total += sum(
        abs(metrics[m] - case.target[m]) for m in study.scenario.compared
      )
    return total

  return {
    method: min(_RATES, key=functools.partial(distance, method))
    for method in _methods(study)
  }


def _compare(study, cases, rates) -> tuple[_Found, dict[str, list[Outcome]]]:
  """Every method at its rate, on every seed."""
  outcomes = {
    method: [_unlearn(study, case, method, rate) for case in cases]
    for method, rate in rates.items()
  }
  found = {
    "original": [case.before for case in cases],
    "retrain": [case.target for case in cases],
  }
  for method, group in outcomes.items():
    found[method] = [
      study.audit(outcome.params, case.task) | outcome.notes
      for outcome, case in zip(group, cases, strict=True)
    ]
  return found, outcomes


def _values(found: _Found, method: str, metric: str) -> np.ndarray:
  return np.array([metrics[metric] for metrics in found[method]])


def _median(found: _Found, method: str, metric: str) -> float:
  return float(np.median(_values(found, method, metric)))


def _kept(found: _Found, method: str, metric: str) -> float:
  """Median over seeds of a metric over that of the original."""
  ratio = _values(found, method, metric) / _values(found, "original", metric)
  return float(np.median(ratio))


def _lost(found: _Found, metric: str) -> float:
  """Median over seeds of the points that Ferrari costs."""
  lost = _values(found, "original", metric) - _values(found, "ferrari", metric)
  return 100 * float(np.median(lost))


def _backdoor(found: _Found):
  """Claim 1: the backdoor goes, clean accuracy stays."""
  return [
    ("1a", "attack success before", ">=", 0.95,
     _median(found, "original", "attack_success")),
    ("1b", "attack success after", "<=", _ATTACK,
     _median(found, "ferrari", "attack_success")),
    ("1c", "clean accuracy lost (points)", "<=", 5,
     _lost(found, "test_accuracy")),
  ]  # fmt: skip


def _sensitivity(found: _Found):
  """Claim 2: sensitivity falls, by more than fine-tuning makes it fall."""
  return [
    ("2a", "sensitivity that is left", "<=", 0.5,
     _kept(found, "ferrari", "sensitivity")),
    ("2b", "sensitivity left by fine-tuning", ">", 0.75,
     _kept(found, "finetune", "sensitivity")),
  ]  # fmt: skip


def _ablate(study, cases) -> dict[str, list[_Point]]:
  """Each variant without a stopping rule, to where the attack first fails."""
  return {
    name: [_ablation(study, case, name) for case in cases]
    for name in _ABLATIONS
  }


def _ablation(study: Study, case: _Case, name: str) -> _Point:
  rate, options = _ABLATION_RATE, _ABLATIONS[name]
  if not options.get("normalize", True):
    rate = _matched(study, case, rate, options)

  def evaluate(params):
    metrics = study.audit(params, case.task)
    shown = ("attack_success", "test_accuracy", "sensitivity")
    return tuple(metrics[metric] for metric in shown)

  try:
    outcome = study.ferrari(
      f"ablation/{name}-{_ABLATION_RATE:g}",
      case.seed,
      case.task,
      case.original.params,
      rate,
      evaluate=evaluate,
      **_NEVER,
      **options,
    )
  except NonFiniteError:
    return _Point(*[math.nan] * len(_Point._fields))
  curve = np.asarray(outcome.curve)
  failed = np.flatnonzero(curve[:, 1] < _ATTACK)
  if not failed.size:
    return _Point(
      *[math.nan] * (len(_Point._fields) - 1), outcome.notes["roughness"]
    )
  steps, attack, accuracy, left = curve[failed[0]]
  return _Point(
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
    transform = study.unlearner(rate, num_steps=1, loop=None, **options)
    forget = {k: case.task.forget[k] for k in ("input", "mask")}
    before = case.original.params
    after = transform(
      jax.random.key(case.seed), before, Request(forget, None)
    ).params
    return float(optax.tree.norm(optax.tree.sub(after, before)))

  return rate * moved() / moved(**options)


def _branches(points: Mapping[str, Sequence[_Point]]):
  """Claim 3: with the perturbed branch stopped, utility goes first."""
  stopped = points["perturbed branch stopped"]
  accuracy = np.median([point.test_accuracy for point in stopped])
  moved = np.median([abs(point.sensitivity - 1) for point in stopped])
  return [
    ("3a", "clean accuracy when the attack fails, perturbed branch stopped",
     "<=", 0.75, float(accuracy)),
    ("3b", "share by which sensitivity has moved by then", "<", 0.15,
     float(moved)),
  ]  # fmt: skip


def _denominator(points: Mapping[str, Sequence[_Point]]):
  """Claim 4: without the denominator, utility and a steady loss suffer."""
  pairs = list(
    zip(points["not normalised"], points["both branches"], strict=True)
  )
  drop = np.median([without.drop - own.drop for without, own in pairs])
  rough = np.median(
    [without.roughness / own.roughness for without, own in pairs]
  )
  return [
    ("4a", "accuracy lost when the attack fails, more without denominator "
     "(points)", ">", 0, float(drop)),
    ("4b", "fluctuation of the loss, without / with denominator", ">", 1,
     float(rough)),
  ]  # fmt: skip


def _sensitive(found: _Found):
  """Claim 5: predictions no longer depend on the column, and on others do."""
  return [
    ("5a", "flip rate that is left", "<=", 0.1,
     _kept(found, "ferrari", "flip_rate")),
    ("5b", "sensitivity that is left", "<=", 0.1,
     _kept(found, "ferrari", "sensitivity")),
    ("5c", "accuracy lost (points)", "<=", 3, _lost(found, "test_accuracy")),
    ("5d", "sensitivity to other columns that is left", ">=", 0.5,
     _kept(found, "ferrari", "other_sensitivity")),
  ]  # fmt: skip


def _bias(cases, found: _Found, outcomes):
  """Claim 6: both kinds of images are classified alike, at little cost."""
  share = np.median(
    [
      outcome.seconds / case.retrained.seconds
      for outcome, case in zip(outcomes["ferrari"], cases, strict=True)
    ]
  )
  return [
    ("6a", "accuracy gap before (points)", ">=", 20,
     100 * _median(found, "original", "accuracy_gap")),
    ("6b", "accuracy gap after (points)", "<=", 5,
     100 * _median(found, "ferrari", "accuracy_gap")),
    ("6c", "time over that of retraining", "<=", 0.1, float(share)),
  ]  # fmt: skip


def _table(name: str, found: _Found, rates: Mapping[str, float]) -> list[str]:
  """Markdown: median and worst seed of every model."""
  metrics = list(found["original"][0])
  lines = [
    f"## {name}: median (worst seed)",
    "",
    row(["method", "learning rate", *metrics]),
    f"|{'---|' * (len(metrics) + 2)}",
  ]
  for method in found:
    cells = [method, f"{rates[method]:g}" if method in rates else ""]
    for metric in metrics:
      values = _values(found, method, metric)
      worst = values.min() if metric in _HIGH else values.max()
      cells.append(f"{np.median(values):.3f} ({worst:.3f})")
    lines.append(row(cells))
  return [*lines, ""]


def _ablation_table(points: Mapping[str, Sequence[_Point]]) -> list[str]:
  """Markdown: median over the seeds in which the attack failed."""
  lines = [
    f"## ablations: where attack success first is below {_ATTACK:g}, looked at "
    f"every {_EVERY} steps; medians over the seeds in which it is",
    "",
    row(["variant", "seeds", *_Point._fields]),
    f"|{'---|' * (len(_Point._fields) + 2)}",
  ]
  for name, group in points.items():
    values = np.array(group)
    values = values[~np.isnan(values[:, 0])]
    cells = (
      [f"{x:.3g}" for x in np.median(values, axis=0)] if len(values) else []
    )
    lines.append(row([name, f"{len(values)} of {len(group)}", *cells]))
  return [*lines, ""]


def _total(recipe: Recipe, name: str, seeds: int) -> int:
  """Steps that the bar counts."""
  pair = recipe.unlearn_steps + recipe.unlearn_steps // recipe.local_steps
  pair += recipe.unlearn_steps if name == "bias" else 0
  tuning = len(_TUNING_SEEDS) * len(_RATES) * pair
  ablations = (
    len(_ABLATIONS) * recipe.unlearn_steps if name == "backdoor" else 0
  )
  return (
    (len(_TUNING_SEEDS) + seeds) * 2 * recipe.rounds
    + tuning
    + seeds * (pair + ablations)
  )
