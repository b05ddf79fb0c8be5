"""Claims 1 to 5 of AMUN at small scale (see `junlearn.methods.amun`).

A small net that overfits a few thousand images; 10 % are forgotten. Every
method's learning rate is chosen on seeds of its own, from the same grid, by
the average gap to retraining: an oracle, and the same one for all.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from scipy.spatial import distance

from experiments.classification import study as image_study
from experiments.classification.study import DESCENTS, Evidence, Recipe, Study
from experiments.run.claim import Claim
from experiments.run.session import Session
from experiments.run.workdir import Workdir
from junlearn import adversarial, objective, relabel, tree
from junlearn.audit import predict, utility
from junlearn.data import Dataset, load, select
from junlearn.descent import descend
from junlearn.loop import NonFiniteError
from junlearn.loss import cross_entropy
from junlearn.methods import amun
from junlearn.transform import Request, Result, Transform, chain

_DATASETS = flags.DEFINE_list(
  "datasets", ["fashion_mnist", "cifar10"], "amun: image sets."
)
_NUM_TRAIN = flags.DEFINE_integer(
  "num_train", 5000, "amun: training images.", lower_bound=100
)
_NUM_TEST = flags.DEFINE_integer(
  "num_test", 1500, "amun: test images.", lower_bound=50
)
_EPOCHS = flags.DEFINE_integer(
  "epochs", 30, "amun: epochs of training from scratch.", lower_bound=1
)
_UNLEARN_EPOCHS = flags.DEFINE_integer(
  "unlearn_epochs", 10, "amun: budget of each method.", lower_bound=1
)

_RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
_TUNING_SEEDS = (1000, 1001)
_ABLATION_EPOCHS = 10
_ABLATION_RATE = 0.01  # the released code's default
_SHOWN = (*image_study.AVERAGED, "svc_confidence", "forget_confidence")


class _Case(NamedTuple):
  """One seed: its request, its original model and both references' evidence."""

  seed: int
  request: Request
  params: Any
  original: Evidence
  retrained: Evidence


# Setting -> method -> the evidence of each seed.
_Evidence = Mapping[str, Mapping[str, Sequence[Evidence]]]


def run(
  workdir: Workdir, seeds: int
) -> Iterator[tuple[list[Claim], list[str]]]:
  """For each data set, the claims and the lines of the table behind them."""
  recipe = Recipe(epochs=_EPOCHS.value, unlearn_epochs=_UNLEARN_EPOCHS.value)
  for name in _DATASETS.value:
    dataset = load(
      name,
      data_dir=flags.FLAGS.data_dir,
      manual_dir=flags.FLAGS.manual_dir,
      num_train=_NUM_TRAIN.value,
      num_test=_NUM_TEST.value,
    )
    with Session(
      workdir, _total(recipe, dataset, seeds), folder=f"amun/{name}"
    ) as session:
      study = Study(dataset, recipe, session)
      study.reference_signals()
      cases = [_case(study, seed) for seed in range(seeds)]
      rates = _tune(study, [_case(study, seed) for seed in _TUNING_SEEDS])
      evidence = _compare(study, cases, rates)
      measured = [
        *_nearest_example(study, cases),
        *_locality(study, cases),
        *_confidence(cases, evidence),
        *_attack(cases, evidence),
        *_gap(evidence),
      ]
    claims = [Claim("amun", number, name, *rest) for number, *rest in measured]
    yield claims, _table(name, cases, evidence, rates)


def _case(study: Study, seed: int) -> _Case:
  train = study.dataset.train
  request = select.by_fraction(train, 0.1, seed=seed)
  original = study.train("original", seed, Request(None, train))
  retrained = study.train("retrain", seed, request)
  target = study.audit(retrained.params, request, seed=seed)
  before = study.audit(original.params, request, seed=seed, retrained=target)
  return _Case(seed, request, original.params, before, target)


def _settings(study: Study, request: Request):
  """`(name, request, steps, methods)` with and without the retained set.

  Every method of a setting takes the same number of steps.
  """
  recipe = study.recipe
  steps = image_study.unlearning_steps
  retained, forgotten = tree.size(request.retain), tree.size(request.forget)
  blind = [name for name, entry in DESCENTS.items() if not entry.needs_retain]
  return (
    ("with D_r", request, steps(recipe, retained), list(DESCENTS)),
    (
      "without D_r",
      request._replace(retain=None),
      steps(recipe, 2 * forgotten),
      blind,
    ),
  )


def _unlearn(study, case, setting, method, rate) -> Evidence:
  name, request, steps, _ = setting
  outcome = study.unlearn(
    f"{name}/{method}-{rate:g}",
    case.seed,
    study.unlearner(method, rate, steps),
    case.params,
    request,
    steps=steps,
  )
  return study.audit(
    outcome.params, case.request, seed=case.seed, retrained=case.retrained
  )


def _tune(study: Study, cases: Sequence[_Case]) -> dict[str, dict[str, float]]:
  """The rate of smallest mean average gap, per setting and method."""

  def gap(setting, method, rate):
    gaps = []
    for case in cases:
      own = _settings(study, case.request)[setting]
      try:
        found = _unlearn(study, case, own, method, rate)
      except NonFiniteError:
        return math.inf
      gaps.append(found.metrics["average_gap"])
    return sum(gaps)

  return {
    name: {
      method: min(_RATES, key=functools.partial(gap, index, method))
      for method in methods
    }
    for index, (name, _, _, methods) in enumerate(
      _settings(study, cases[0].request)
    )
  }


def _compare(study, cases, rates) -> _Evidence:
  """Every method at its rate, on every seed."""
  evidence: dict[str, dict[str, list[Evidence]]] = {}
  for case in cases:
    for setting in _settings(study, case.request):
      by_method = evidence.setdefault(setting[0], {})
      for method in setting[3]:
        rate = rates[setting[0]][method]
        by_method.setdefault(method, []).append(
          _unlearn(study, case, setting, method, rate)
        )
  return evidence


def _nearest_example(study: Study, cases: Sequence[_Case]):
  """Claim 1: the nearest adversarial example is near and easy to find.

  The numbers are means over seeds; the medians are over the examples that were
  classified correctly.
  """
  searches = [
    adversarial.nearest_adversarial(study.model, epsilon=epsilon)
    for epsilon in (0.04, 0.02)
  ]
  train, measured = study.dataset.train, []
  for case in cases:
    forget = case.request.forget
    found, halved = (search(case.params, forget) for search in searches)
    apart = distance.cdist(
      forget["input"].reshape(len(forget["id"]), -1),
      train["input"].reshape(len(train["id"]), -1),
    )
    apart[forget["label"][:, None] == train["label"]] = np.inf
    correct = np.asarray(found.distance) > 0
    median = float(np.median(found.distance[correct]))
    measured.append(
      [
        1 - float(np.mean(found.failed)),
        float(np.median(apart.min(axis=1)[correct])) / median,
        abs(float(np.median(halved.distance[correct])) / median - 1),
      ]
    )
  flipped, ratio, change = np.mean(measured, axis=0).tolist()
  return [
    ("1a", "share of D_f that flips", ">=", 0.99, flipped),
    ("1b", "other-class neighbour / adversarial distance", ">=", 3, ratio),
    ("1c", "change of the median when epsilon is halved", "<", 0.1, change),
  ]


def _corrupt(kind: str, num_classes: int) -> Transform:
  """Replaces part of each pair (x_adv, y_adv) in `extra`, for claim 2."""

  def transform(key, params, request):
    pairs, forget = request.extra, request.forget
    if kind == "random direction":
      radius = adversarial.l2_norm(pairs["input"] - forget["input"])
      pairs = pairs | {
        "input": adversarial.random_direction(key, forget["input"], radius)
      }
    else:
      labels = relabel.random_labels(
        key,
        pairs["label"],
        num_classes,
        exclude=(pairs["label"], forget["label"]),
      )
      pairs = pairs | {"label": labels}
      if kind == "x, random label":
        pairs = pairs | {"input": forget["input"]}
    return Result(params, request._replace(extra=pairs), {})

  return transform


def _locality(study: Study, cases: Sequence[_Case]):
  """Claim 2: only true adversarial pairs spare the rest of the model."""
  kinds = ("x_adv, random label", "x, random label", "random direction")
  forgotten = tree.size(cases[0].request.forget)
  steps = _ABLATION_EPOCHS * -(-forgotten // study.recipe.batch_size)
  search = adversarial.nearest_adversarial(study.model)
  descent = descend(
    objective.weighted(cross_entropy(study.model), extra=1.0),
    study.optimizer(_ABLATION_RATE, steps),
    num_steps=steps,
    batch_size=study.recipe.batch_size,
    loop=study.session.loop,
  )
  pair = amun.pair(search, use_retain=False, use_forget=False)
  transforms = {"x_adv, y_adv": chain(attack=pair, descend=descent)} | {
    kind: chain(
      attack=pair,
      corrupt=_corrupt(kind, study.dataset.num_classes),
      descend=descent,
    )
    for kind in kinds
  }
  test = study.dataset.test
  lost = {kind: [] for kind in transforms}
  for case in cases:
    for kind, transform in transforms.items():
      outcome = study.unlearn(
        f"ablation/{kind}",
        case.seed,
        transform,
        case.params,
        case.request,
        steps=steps,
      )
      after = utility.accuracy(
        predict.predict(study.model, outcome.params, test["input"]),
        test["label"],
      )
      before = case.original.metrics["test_accuracy"]
      lost[kind].append(100 * (before - after))
  loss = {kind: float(np.mean(points)) for kind, points in lost.items()}
  own = loss["x_adv, y_adv"]
  labels = [loss[kind] for kind in kinds[:2]]
  direction = loss["random direction"]
  return [
    ("2a", "test points lost, random label on x_adv less AMUN", ">", 5,
     labels[0] - own),
    ("2b", "test points lost, random label on x less AMUN", ">", 5,
     labels[1] - own),
    ("2c", "test points lost, random direction less AMUN", ">", 0,
     direction - own),
    ("2d", "test points lost, the least random label less random direction",
     ">", 0, min(labels) - direction),
  ]  # fmt: skip


def _confidence(cases: Sequence[_Case], evidence: _Evidence):
  """Claim 3: the confidence on D_f approaches retraining's."""

  def off(found, case):
    name = "forget_confidence"
    return abs(found.metrics[name] - case.retrained.metrics[name])

  unlearned = evidence["with D_r"]["amun"]
  closer = [
    off(after, case) < off(case.original, case)
    for after, case in zip(unlearned, cases, strict=True)
  ]
  ks = [
    np.mean([found.metrics["confidence_ks_test"] for found in group])
    for group in (unlearned, [case.original for case in cases])
  ]
  return [
    ("3a", "share of seeds whose confidence on D_f comes closer", ">=", 0.8,
     float(np.mean(closer))),
    ("3b", "KS of D_f and test confidence, after / before", "<=", 0.5,
     float(ks[0] / ks[1])),
  ]  # fmt: skip


def _attack(cases: Sequence[_Case], evidence: _Evidence):
  """Claim 4: RMIA falls to retraining's level."""

  def auc(group):
    return float(np.mean([found.metrics["rmia_auc"] for found in group]))

  retrained = auc([case.retrained for case in cases])
  after = auc(evidence["with D_r"]["amun"])
  return [
    ("4a", "RMIA AUC of the original", ">", 0.6,
     auc([case.original for case in cases])),
    ("4b", "RMIA AUC, distance to retraining's", "<=", 0.03,
     abs(after - retrained)),
  ]  # fmt: skip


def _gap(evidence: _Evidence):
  """Claim 5: the smallest average gap, and more so without D_r."""
  gap = {
    setting: {
      method: 100 * np.mean([found.metrics["average_gap"] for found in group])
      for method, group in by_method.items()
    }
    for setting, by_method in evidence.items()
  }
  margin = {
    setting: {name: values[name] - values["amun"] for name in values}
    for setting, values in gap.items()
  }
  rivals = {"finetune": "FT", "random_label": "RL", "ascent": "GA"}
  for letter, (name, short) in zip("abc", rivals.items(), strict=True):
    quantity = f"average gap with D_r, {short} less AMUN (points)"
    yield f"5{letter}", quantity, ">", 0, float(margin["with D_r"][name])
  for letter, name in zip("de", ("random_label", "ascent"), strict=True):
    more = margin["without D_r"][name] - margin["with D_r"][name]
    quantity = f"growth of that margin over {rivals[name]} without D_r (points)"
    yield f"5{letter}", quantity, ">", 0, float(more)


def _table(name, cases, evidence: _Evidence, rates) -> list[str]:
  """Markdown: mean and standard deviation over seeds of every model."""
  header = ["setting", "method", "learning rate", *_SHOWN, "average gap"]
  lines = [
    f"## {name}",
    "",
    "Mean ± standard deviation over seeds, in percent; learning rates chosen "
    "on other seeds by the average gap.",
    "",
    f"| {' | '.join(header)} |",
    f"|{'---|' * len(header)}",
  ]

  def row(setting, method, rate, group):
    cells = [setting, method, rate]
    for metric in (*_SHOWN, "average_gap"):
      values = 100 * np.array([found.metrics[metric] for found in group])
      cells.append(f"{values.mean():.2f} ± {values.std(ddof=1):.2f}")
    lines.append(f"| {' | '.join(cells)} |")

  row("", "retrain", "", [case.retrained for case in cases])
  row("", "original", "", [case.original for case in cases])
  for setting, by_method in evidence.items():
    for method, group in by_method.items():
      row(setting, method, f"{rates[setting][method]:g}", group)
  return [*lines, ""]


def _total(recipe: Recipe, dataset: Dataset, seeds: int) -> int:
  """Steps of one model that a data set's claims take."""
  train, test = tree.size(dataset.train), tree.size(dataset.test)
  forgotten = round(0.1 * train)
  scratch = image_study.training_steps
  pair = scratch(recipe, train) + scratch(recipe, train - forgotten)
  blind = sum(not method.needs_retain for method in DESCENTS.values())
  trial = len(DESCENTS) * image_study.unlearning_steps(
    recipe, train - forgotten
  )
  trial += blind * image_study.unlearning_steps(recipe, 2 * forgotten)
  ablation = 4 * _ABLATION_EPOCHS * -(-forgotten // recipe.batch_size)
  return (
    recipe.references * scratch(recipe, (train + test) // 2)
    + (seeds + len(_TUNING_SEEDS)) * pair
    + len(_TUNING_SEEDS) * len(_RATES) * trial
    + seeds * (trial + ablation)
  )
