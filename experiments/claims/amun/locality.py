"""Claim 2 of AMUN: only true adversarial pairs spare the rest of the model."""

import numpy as np

from experiments.claims.amun.comparison import Found
from experiments.classification.study import Study
from junlearn import adversarial, objective, relabel, tree
from junlearn.audit import outputs, utility
from junlearn.descent import descend
from junlearn.loss import cross_entropy
from junlearn.methods import amun
from junlearn.transform import Result, Transform, chain

_EPOCHS = 10
_RATE = 0.01  # the released code's default
_TRUE = "x_adv, y_adv"
_CORRUPTED = ("x_adv, random label", "x, random label", "random direction")


def steps(study: Study, seeds: int) -> int:
  """Steps of one model that the claim takes."""
  (task,) = study.tasks(0)
  each = _steps(study, tree.size(task.request.forget))
  return seeds * (1 + len(_CORRUPTED)) * each


def claims(study: Study, found: Found) -> list[tuple]:
  """Claim 2, of the test accuracy that each kind of pair costs."""
  forgotten = tree.size(found.cases[0].task.request.forget)
  num_steps = _steps(study, forgotten)
  search = adversarial.nearest_adversarial(study.model)
  descent = descend(
    objective.weighted(cross_entropy(study.model), extra=1.0),
    study.recipe.optimizer(_RATE, num_steps),
    num_steps=num_steps,
    batch_size=study.recipe.batch_size,
    loop=study.session.loop,
  )
  pair = amun.pair(search, use_retain=False, use_forget=False)
  transforms = {_TRUE: chain(attack=pair, descend=descent)} | {
    kind: chain(
      attack=pair,
      corrupt=_corrupt(kind, study.dataset.num_classes),
      descend=descent,
    )
    for kind in _CORRUPTED
  }
  test = study.dataset.test

  def lost(kind, case, original):
    outcome = study.apply(
      f"ablation/{kind}",
      case.seed,
      transforms[kind],
      case.original.params,
      case.task.request,
      steps=num_steps,
    )
    logits = outputs.predict(study.model, outcome.params, test["input"])
    after = utility.accuracy(logits, test["label"])
    return 100 * (original.metrics["test_accuracy"] - after)

  pairs = list(zip(found.cases, found.originals, strict=True))
  loss = {
    kind: float(np.mean([lost(kind, *each) for each in pairs]))
    for kind in transforms
  }
  on_adversarial, on_own, direction = (loss[kind] for kind in _CORRUPTED)
  return [
    ("2a", "test points lost, random label on x_adv less AMUN", ">", 5,
     on_adversarial - loss[_TRUE]),
    ("2b", "test points lost, random label on x less AMUN", ">", 5,
     on_own - loss[_TRUE]),
    ("2c", "test points lost, random direction less AMUN", ">", 0,
     direction - loss[_TRUE]),
    ("2d", "test points lost, the least random label less random direction",
     ">", 0, min(on_adversarial, on_own) - direction),
  ]  # fmt: skip


def _steps(study: Study, forgotten: int) -> int:
  return _EPOCHS * -(-forgotten // study.recipe.batch_size)


def _corrupt(kind: str, num_classes: int) -> Transform:
  """Replaces part of each pair (x_adv, y_adv) in `extra`."""

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
