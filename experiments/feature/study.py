"""Clients that train a model together, one of which asks to forget a feature.

Shared by the main job (`experiments.feature`) and the claims.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.feature import metrics
from experiments.feature.methods import METHODS, federated
from experiments.feature.recipe import Recipe
from experiments.feature.scenarios import SCENARIOS
from experiments.feature.tasks import Task
from experiments.run import figures, study
from experiments.run.findings import REFERENCES, Findings
from experiments.run.session import Outcome
from experiments.run.study import Case, Evidence
from junlearn import nn, report, tree
from junlearn.data import Dataset
from junlearn.model import Model, from_linen
from junlearn.transform import Request, Transform, stage_key


class Study(study.Study[Task]):
  """One scenario; every training is a phase of the session.

  Args:
    name: of the scenario.
    dataset: of images; None for the scenario of a table.
    recipe: of training and unlearning.
  """

  NOT_PROVEN = metrics.NOT_PROVEN

  def __init__(self, name: str, dataset: Dataset | None, recipe: Recipe):
    self.name, self.scenario = name, SCENARIOS[name]
    self.dataset, self.recipe = dataset, recipe
    classes = self.scenario.num_classes or dataset.num_classes
    self.model = from_linen(nn.MLP(classes, hidden=(128, 64)))

  @property
  def METRICS(self) -> Sequence[report.Metric]:  # noqa: N802  as the others'
    """Those of the scenario."""
    return self.scenario.metrics

  @property
  def title(self) -> str:
    """Of the report."""
    return f"Forgetting a feature: {self.name}"

  def tasks(self, seed: int) -> list[Task]:
    """The one request of a seed."""
    return [self.scenario.make(self.dataset, self.recipe, seed)]

  def steps(self, name: str, task: Task) -> int:
    """Steps of one model, or rounds of all clients; see `study.Study`."""
    del task
    if name == "shared":
      return 0
    if name in REFERENCES:
      return self.recipe.rounds
    return METHODS[name].steps(self.recipe)

  def train(self, task: Task | None, seed: int) -> Outcome:
    """The model of those who stay; for None, of all clients."""
    given = task or self.tasks(seed)[0]
    model = self.blind(task) if task else self.model
    key = stage_key(jax.random.key(seed), "train")
    return self._federate(
      f"seed{seed}/{'retrain' if task else 'original'}",
      federated(
        model,
        self.recipe,
        self.recipe.learning_rate,
        num_steps=self.recipe.rounds,
        loop=self.session.loop,
      ),
      key,
      model.init(key, given.forget["input"][:1]),
      given.retained if task else given.clients,
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

  def unlearn(self, method: str, case: Case[Task]) -> Outcome:
    """What a method makes of the original model."""
    rate = self.scenario.rates[method]
    if method == "ferrari" and self.recipe.unlearn_learning_rate is not None:
      rate = self.recipe.unlearn_learning_rate
    return self.apply(method, case, rate)

  def apply(
    self,
    method: str,
    case: Case[Task],
    rate: float,
    *,
    name: str | None = None,
    evaluate: Callable[[Any], tuple[float, ...]] | None = None,
    **options: Any,
  ) -> Outcome:
    """A phase of a method at a learning rate, from the original model.

    Args:
      method: one of `METHODS`.
      case: what is asked, and the original model.
      rate: the learning rate.
      name: of the phase, if not the method's.
      evaluate: `params -> values` for the curve; None for `tracker`.
      **options: of the method.
    """
    transform = self.unlearner(method, rate, **options)
    place = f"seed{case.seed}/{name or method}"
    key = stage_key(jax.random.key(case.seed), "unlearn")
    params, steps = case.original.params, self.steps(method, case.task)
    evaluate = evaluate or self.tracker(case.task)
    if METHODS[method].federated:
      clients = case.task.retained
      return self._federate(
        place, transform, key, params, clients, steps, evaluate
      )
    # The asking client gives its inputs alone, without labels.
    forget = {k: case.task.forget[k] for k in ("input", "mask")}
    return self.session.phase(
      place,
      lambda: transform(key, params, Request(forget, None)),
      start=params,
      steps=steps,
      evaluate=evaluate,
      note=_steps_taken,
    )

  @functools.cache  # noqa: B019  one study lives as long as the run
  def unlearner(self, method: str, rate: float, **options: Any) -> Transform:
    """A method's transform, made once so that all seeds share its program.

    Ferrari has the scenario's stopping rule, unless the options say otherwise.
    """
    entry = METHODS[method]
    known = {
      "num_steps": entry.steps(self.recipe),
      "loop": self.session.loop,
      **({} if entry.federated else self.scenario.options),
    }
    return entry.make(self.model, self.recipe, rate, **(known | options))

  def tracker(self, task: Task) -> Callable[[Any], tuple[float, float]]:
    """Sensitivity and accuracy on test examples, for a curve."""
    examples = task.tests[self.scenario.tracked]
    return lambda params: (
      metrics.feature_sensitivity(self.model, params, examples),
      metrics.accuracy(self.model, params, examples),
    )

  def _federate(
    self, place, transform, key, params, clients, num_rounds, evaluate=None
  ) -> Outcome:
    """A phase of rounds; the outcome has the params of the server."""
    copies = tree.stack([params] * tree.size(clients))
    outcome = self.session.phase(
      place,
      lambda: transform(key, copies, Request(None, clients)),
      start=copies,
      steps=num_rounds,
      evaluate=evaluate and (lambda copies: evaluate(tree.take(copies, 0))),
    )
    return outcome._replace(params=tree.take(outcome.params, 0))

  def audit(self, method: str, outcome: Outcome, case: Case[Task]) -> Evidence:
    """The scenario's metrics; the retrained model does not see the feature."""
    blind = method == "retrain"
    model = self.blind(case.task) if blind else self.model
    return Evidence(self.scenario.measure(model, outcome.params, case.task))

  def deletion(self, tasks: Sequence[Task]) -> report.Deletion:
    """The request as the page tells it."""
    first = tasks[0]
    return report.Deletion(
      ids=first.forget["id"].tolist(),
      total=int(first.clients["weight"].sum()),
      selection=self.scenario.selection,
    )

  def figures(self, findings: Findings) -> list[Any]:
    """Accuracy against sensitivity, and both on the way."""
    levels = ("sensitivity", self.scenario.accuracy.name)
    label = self.scenario.accuracy.label

    def line(method):
      if method in REFERENCES:
        points = [[findings.metrics(method)[name] for name in levels]]
      else:
        points = findings.first(method)["curve"][:, 1:]
      return report.Series(method, *np.transpose(points))

    return [
      report.series(
        [line(method) for method in findings.methods],
        title="Accuracy against sensitivity",
        x_label="Sensitivity to the feature",
        y_label=label,
        caption="First seed. Each line begins at the original and moves with "
        "the steps; the dots are the original and the retrained model.",
      ),
      figures.progress(
        findings,
        levels,
        # Rounds of one method and steps of another on one axis.
        x=lambda steps: 100 * steps / steps[-1],
        labels=("Sensitivity", label),
        x_label="Fraction of the budget of steps (%)",
        caption="First seed; the levels are original and retrained. A line is "
        "flat once its method has stopped.",
      ),
    ]


def _steps_taken(info: Any) -> dict[str, float]:
  """Steps until the descent stopped, and how its loss went up and down.

  The latter is the standard deviation of the change from step to step over the
  mean, both of the first 50 steps or of those that were taken.
  """
  taken = int(info["steps"]["taken"][-1])
  loss = np.asarray(info["steps"]["loss"])[: min(taken, 50)]
  roughness = np.std(np.diff(loss)) / np.mean(loss) if taken > 1 else 0.0
  return {"steps": taken, "roughness": float(roughness)}
