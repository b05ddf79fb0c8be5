"""Clients that train a model together, one of which asks to forget a feature.

Three scenarios. `backdoor`: the client's digits carry a trigger and the label
that it stands for. `bias`: the colour of the client's digits tells their label,
the others' colour does not. `sensitive`: a binary column of a table is private.
Shared by the job (`experiments.feature`) and the claims.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments.feature import tasks as feature_tasks
from experiments.feature.tasks import TARGET, Recipe, Task
from experiments.run.session import Outcome, Session
from junlearn import descent, nn, tree
from junlearn.audit import predict, sensitivity, utility
from junlearn.clients import rounds
from junlearn.data import Dataset, feature
from junlearn.methods import ferrari, finetune
from junlearn.model import Model, from_linen
from junlearn.transform import Request, Transform, stage_key


class Scenario(NamedTuple):
  """What is asked for.

  Attributes:
    make: `(dataset, recipe, seed) -> Task`.
    audit: `(study, params, task) -> metrics`, with a model that may be blind.
    rates: learning rate of each method, chosen by the claims on seeds of their
      own (experiments/results/claims_ferrari.md).
    options: of `ferrari.transform`.
    num_classes: of the labels; None for those of the data set.
    compared: metrics of the average gap to retraining.
  """

  make: Callable[[Dataset | None, Recipe, int], Task]
  audit: Callable[["Study", Model, Any, Task], dict[str, float]]
  rates: Mapping[str, float]
  options: Mapping[str, Any]
  num_classes: int | None
  compared: tuple[str, ...]


def _sensitivities(study, model, params, examples) -> dict[str, float]:
  return {
    name: study.sensitivity(model, params, examples, of=of)
    for name, of in (
      ("sensitivity", "logits"),
      ("sensitivity_probabilities", "probabilities"),
      ("sensitivity_relative", "relative"),
    )
  }


def _audit_backdoor(study, model, params, task):
  clean, stamped = task.tests["clean"], task.tests["stamped"]
  logits = predict.predict(model, params, stamped["input"])
  return {
    "test_accuracy": _accuracy(model, params, clean),
    "attack_success": sensitivity.attack_success(
      logits, stamped["true_label"], target=TARGET
    ),
    "recovered": utility.accuracy(logits, stamped["true_label"]),
    **_sensitivities(study, model, params, clean),
  }


def _audit_bias(study, model, params, task):
  biased, unbiased = (
    _accuracy(model, params, task.tests[name])
    for name in ("biased", "unbiased")
  )
  return {
    "unbiased_accuracy": unbiased,
    "biased_accuracy": biased,
    "accuracy_gap": abs(biased - unbiased),
    **_sensitivities(study, model, params, task.tests["unbiased"]),
  }


def _audit_sensitive(study, model, params, task):
  clean, flipped = task.tests["clean"], task.tests["flipped"]
  own, other = (
    predict.predict(model, params, part["input"]) for part in (clean, flipped)
  )
  width = clean["input"].shape[1]
  others = [
    study.sensitivity(
      model, params, {**clean, "mask": feature.column(width, index)}
    )
    for index in range(width)
    if index != task.column
  ]
  return {
    "test_accuracy": utility.accuracy(own, clean["label"]),
    "flip_rate": sensitivity.flip_rate(own, other),
    "inversion_success": sensitivity.inversion_success(
      own, other, clean["label"]
    ),
    **_sensitivities(study, model, params, clean),
    "other_sensitivity": float(np.mean(others)),
  }


def _accuracy(model, params, examples):
  logits = predict.predict(model, params, examples["input"])
  return utility.accuracy(logits, examples["label"])


SCENARIOS = {
  "backdoor": Scenario(
    feature_tasks.backdoor,
    _audit_backdoor,
    {"ferrari": 0.01, "finetune": 0.1},
    {"target": TARGET},
    None,
    ("test_accuracy", "attack_success"),
  ),
  "bias": Scenario(
    feature_tasks.bias,
    _audit_bias,
    {"ferrari": 0.03, "finetune": 0.01},
    {},
    2,
    ("unbiased_accuracy", "biased_accuracy"),
  ),
  "sensitive": Scenario(
    feature_tasks.sensitive,
    _audit_sensitive,
    {"ferrari": 1e-3, "finetune": 1e-4},
    {"sensitivity_share": 0.05},
    2,
    ("test_accuracy", "flip_rate"),
  ),
}
METHODS = ("ferrari", "finetune")


class Study:
  """One scenario; every training is a phase of the session."""

  def __init__(
    self,
    name: str,
    dataset: Dataset | None,
    recipe: Recipe,
    session: Session,
  ):
    self.name, self.scenario = name, SCENARIOS[name]
    self.dataset, self.recipe, self.session = dataset, recipe, session
    classes = self.scenario.num_classes or dataset.num_classes
    self.model = from_linen(nn.MLP(classes, hidden=(128, 64)))

  def task(self, seed: int) -> Task:
    """The scenario's examples of one seed."""
    return self.scenario.make(self.dataset, self.recipe, seed)

  def train(self, name: str, seed: int, task: Task) -> Outcome:
    """`original` on all clients, or `retrain` without the feature."""
    retraining = name == "retrain"
    clients = task.retained if retraining else task.clients
    model = self.blind(task) if retraining else self.model
    key = stage_key(jax.random.key(seed), "train")
    params = model.init(key, task.forget["input"][:1])
    return self._federate(
      f"seed{seed}/{name}",
      model,
      self.recipe.learning_rate,
      key,
      params,
      clients,
      self.recipe.rounds,
    )

  def blind(self, task: Task) -> Model:
    """The model without sight of what a retrained one must not read."""
    if task.hidden is None:
      return self.model
    shown = (~task.hidden).astype(np.float32)
    return self.model._replace(
      apply=lambda params, inputs, key=None: self.model.apply(
        params, inputs * shown, key
      )
    )

  def finetune(
    self, name: str, seed: int, task: Task, params: Any, rate: float
  ) -> Outcome:
    """Federated averaging without D_u, of as many steps as Ferrari may take."""
    return self._federate(
      f"seed{seed}/{name}",
      self.model,
      rate,
      stage_key(jax.random.key(seed), "unlearn"),
      params,
      task.retained,
      max(self.recipe.unlearn_steps // self.recipe.local_steps, 1),
      track=task,
    )

  def ferrari(
    self,
    name: str,
    seed: int,
    task: Task,
    params: Any,
    rate: float,
    *,
    evaluate: Callable[[Any], tuple[float, ...]] | None = None,
    **options: Any,
  ) -> Outcome:
    """The asking client's descent; it is given D_u alone, without labels.

    The outcome's curve has what `evaluate` says, or `tracker`.
    """
    transform = self.unlearner(rate, **options)
    forget = {k: task.forget[k] for k in ("input", "mask")}
    key = stage_key(jax.random.key(seed), "unlearn")
    return self.session.phase(
      f"seed{seed}/{name}",
      lambda: transform(key, params, Request(forget, None)),
      start=params,
      steps=self.recipe.unlearn_steps,
      evaluate=evaluate or self.tracker(task),
      note=_steps_taken,
    )

  @functools.cache  # noqa: B019  one study lives as long as the run
  def unlearner(self, rate: float, **options: Any) -> Transform:
    """Ferrari with the scenario's stopping rule, unless options say otherwise.

    The rate is part of the state, so that all rates share one program.
    """
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
    return ferrari.transform(
      self.model,
      optimizer,
      **{
        "num_draws": self.recipe.num_draws,
        "num_steps": self.recipe.unlearn_steps,
        "batch_size": self.recipe.batch_size,
        "check_every": self.recipe.check_every,
        "loop": self.session.loop,
        **self.scenario.options,
        **options,
      },
    )

  def audit(self, params: Any, task: Task, *, blind: bool = False):
    """The scenario's metrics; `blind` for the retrained model."""
    model = self.blind(task) if blind else self.model
    return self.scenario.audit(self, model, params, task)

  def sensitivity(self, model, params, examples, *, of="logits") -> float:
    """On the examples' mask, with the same perturbations for all models."""
    return sensitivity.feature_sensitivity(
      jax.random.key(0), model, params, examples["input"], examples["mask"],
      of=of,
    )  # fmt: skip

  def tracker(self, task: Task) -> Callable[[Any], tuple[float, float]]:
    """Sensitivity and accuracy on the first test examples, for a curve."""
    examples = next(iter(task.tests.values()))
    if "unbiased" in task.tests:
      examples = task.tests["unbiased"]

    def evaluate(params):
      return (
        self.sensitivity(self.model, params, examples),
        _accuracy(self.model, params, examples),
      )

    return evaluate

  def _federate(
    self, name, model, rate, key, params, clients, num_rounds, track=None
  ) -> Outcome:
    """A phase of rounds; the outcome has the params of the server."""
    local = finetune.transform(
      model,
      optax.sgd(rate, momentum=self.recipe.momentum),
      num_steps=self.recipe.local_steps,
      batch_size=self.recipe.batch_size,
    )
    rule = rounds.descent(
      rounds.federated_averaging(local),
      num_rounds=num_rounds,
      read=lambda request: request,
    )
    transform = descent.run(rule, self.session.loop)
    copies = tree.stack([params] * tree.size(clients))
    evaluate = self.tracker(track) if track else None
    outcome = self.session.phase(
      name,
      lambda: transform(key, copies, Request(None, clients)),
      start=copies,
      steps=num_rounds,
      evaluate=evaluate and (lambda copies: evaluate(tree.take(copies, 0))),
    )
    return outcome._replace(params=tree.take(outcome.params, 0))


def _steps_taken(info: Any) -> dict[str, float]:
  """Steps until the descent stopped, and how its loss went up and down.

  The latter is the standard deviation of the change from step to step over the
  mean, both of the first 50 steps or of those that were taken.
  """
  stopped = np.asarray(info["steps"]["stopped"])
  taken = int(np.argmax(stopped)) + 1 if stopped.any() else len(stopped)
  loss = np.asarray(info["steps"]["loss"])[: min(taken, 50)]
  roughness = np.std(np.diff(loss)) / np.mean(loss) if taken > 1 else 0.0
  return {"steps": taken, "roughness": float(roughness)}
