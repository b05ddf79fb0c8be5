"""Claims 3 to 5 of AMUN: every method at its best rate, on every seed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.classification import metrics
from experiments.classification.methods import METHODS
from experiments.classification.study import Study
from experiments.classification.tasks import Task
from experiments.run import tables, tuning
from experiments.run.study import Case, Evidence
from junlearn import tree
from junlearn.transform import Request

_RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
_TUNING_SEEDS = (1000, 1001)
_SHOWN = (*metrics.AVERAGED, "svc_confidence", "forget_confidence")
_METHODS = (
  "finetune", "ascent", "grad_difference", "random_label", "amun",
  "amun_deletion",
)  # fmt: skip
# Those with and without the retained set.
_SETTINGS = {
  "with D_r": _METHODS,
  "without D_r": [name for name in _METHODS if not METHODS[name].needs_retain],
}


class Found(NamedTuple):
  """What came of a comparison.

  Attributes:
    cases: one a seed; their targets are the retrained models' evidence.
    originals: evidence of the original models, one a seed.
    rates: setting -> method -> learning rate.
    unlearned: setting -> method -> evidence, one a seed.
  """

  cases: Sequence[Case[Task]]
  originals: Sequence[Evidence]
  rates: Mapping[str, Mapping[str, float]]
  unlearned: Mapping[str, Mapping[str, Sequence[Evidence]]]


def compare(study: Study, seeds: int) -> Found:
  """Every method at its rate, on every seed."""
  study.begin([])
  cases = [study.case(*study.tasks(seed), seed) for seed in range(seeds)]
  originals = [study.audit("original", case.original, case) for case in cases]
  rates = _tune(study)
  unlearned = {
    setting: {
      method: [_unlearn(study, case, setting, method, rate) for case in cases]
      for method, rate in by_method.items()
    }
    for setting, by_method in rates.items()
  }
  return Found(cases, originals, rates, unlearned)


def steps(study: Study, seeds: int) -> int:
  """Steps of one model that all of that takes."""
  (task,) = study.tasks(0)
  trial = sum(
    len(methods) * _setting(study, task, setting)[1]
    for setting, methods in _SETTINGS.items()
  )
  pair = study.steps("original", task) + study.steps("retrain", task)
  tuning_steps = len(_TUNING_SEEDS) * (pair + len(_RATES) * trial)
  return study.steps("shared", task) + tuning_steps + seeds * (pair + trial)


def _setting(study: Study, task: Task, setting: str) -> tuple[Request, int]:
  """What the methods of a setting read, and how many steps each may take."""
  request = task.request
  if setting == "with D_r":
    return request, study.recipe.unlearning_steps(tree.size(request.retain))
  steps = study.recipe.unlearning_steps(2 * tree.size(request.forget))
  return request._replace(retain=None), steps


def _unlearn(study, case, setting, method, rate) -> Evidence:
  request, steps = _setting(study, case.task, setting)
  outcome = study.apply(
    f"{setting}/{method}-{rate:g}",
    case.seed,
    study.unlearner(method, rate, steps),
    case.original.params,
    request,
    steps=steps,
  )
  return study.audit(method, outcome, case)


def _tune(study: Study) -> dict[str, dict[str, float]]:
  """The rate of smallest mean average gap, per setting and method."""
  cases = [study.case(*study.tasks(seed), seed) for seed in _TUNING_SEEDS]

  def best(setting, method):
    def gap(rate, case):
      found = _unlearn(study, case, setting, method, rate)
      return found.metrics["average_gap"]

    return tuning.best(gap, _RATES, cases)

  return {
    setting: {method: best(setting, method) for method in methods}
    for setting, methods in _SETTINGS.items()
  }


def claims(found: Found) -> list[tuple]:
  """Claims 3 to 5."""
  return [*_confidence(found), *_attack(found), *_gap(found)]


def _confidence(found: Found):
  """Claim 3: the confidence on D_f approaches retraining's."""

  def off(evidence, case):
    name = "forget_confidence"
    return abs(evidence.metrics[name] - case.target.metrics[name])

  unlearned = found.unlearned["with D_r"]["amun"]
  closer = [
    off(after, case) < off(before, case)
    for after, before, case in zip(
      unlearned, found.originals, found.cases, strict=True
    )
  ]
  ks = [
    np.mean([evidence.metrics["confidence_ks_test"] for evidence in group])
    for group in (unlearned, found.originals)
  ]
  return [
    ("3a", "fraction of seeds whose confidence on D_f comes closer", ">=", 0.8,
     float(np.mean(closer))),
    ("3b", "KS of D_f and test confidence, after / before", "<=", 0.5,
     float(ks[0] / ks[1])),
  ]  # fmt: skip


def _attack(found: Found):
  """Claim 4: RMIA falls to retraining's level."""

  def auc(group):
    return float(np.mean([evidence.metrics["rmia_auc"] for evidence in group]))

  retrained = auc([case.target for case in found.cases])
  after = auc(found.unlearned["with D_r"]["amun"])
  return [
    ("4a", "RMIA AUC of the original", ">", 0.6, auc(found.originals)),
    ("4b", "RMIA AUC, distance to retraining's", "<=", 0.03,
     abs(after - retrained)),
  ]  # fmt: skip


def _gap(found: Found) -> Iterator[tuple]:
  """Claim 5: the smallest average gap, and more so without D_r."""

  def margin(setting, rival):
    rival, amun = (
      100 * np.mean([evidence.metrics["average_gap"] for evidence in group])
      for group in (found.unlearned[setting][name] for name in (rival, "amun"))
    )
    return float(rival - amun)

  rivals = {"finetune": "FT", "random_label": "RL", "ascent": "GA"}
  for letter, (name, short) in zip("abc", rivals.items(), strict=True):
    quantity = f"average gap with D_r, {short} less AMUN (points)"
    yield f"5{letter}", quantity, ">", 0, margin("with D_r", name)
  for letter, name in zip("de", ("random_label", "ascent"), strict=True):
    more = margin("without D_r", name) - margin("with D_r", name)
    quantity = f"growth of that margin over {rivals[name]} without D_r (points)"
    yield f"5{letter}", quantity, ">", 0, more


def table(name: str, found: Found) -> list[str]:
  """Markdown: mean and standard deviation over seeds of every model."""
  lines = tables.section(
    name,
    ["setting", "method", "learning rate", *_SHOWN, "average gap"],
    "Mean ± standard deviation over seeds, in percent; learning rates chosen "
    "on other seeds by the average gap.",
  )

  def add(setting, method, rate, group):
    cells = [setting, method, rate]
    for metric in (*_SHOWN, "average_gap"):
      values = 100 * np.array([evidence.metrics[metric] for evidence in group])
      cells.append(f"{values.mean():.2f} ± {values.std(ddof=1):.2f}")
    lines.append(tables.row(cells))

  add("", "retrain", "", [case.target for case in found.cases])
  add("", "original", "", found.originals)
  for setting, by_method in found.unlearned.items():
    for method, group in by_method.items():
      add(setting, method, f"{found.rates[setting][method]:g}", group)
  return [*lines, ""]
