"""Training, unlearning and auditing an image classifier, phase by phase.

Shared by the main job (`experiments.classification`) and the claims.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.classification import metrics, tasks
from experiments.classification.methods import METHODS
from experiments.classification.recipe import MODELS, Recipe
from experiments.classification.tasks import Asked, Task
from experiments.run import figures, study
from experiments.run.findings import Findings
from experiments.run.session import Outcome
from experiments.run.study import Case, Evidence
from junlearn import report, tree
from junlearn.audit import outputs, population, rmia, signals, utility
from junlearn.data import Dataset
from junlearn.methods import retrain
from junlearn.model import from_linen
from junlearn.transform import Request, Transform, stage_key

_TRACKED = 500  # examples of each kind on which a curve is measured


class Study(study.Study[Task]):
  """One data set, one recipe; every training is a phase of the session.

  Args:
    dataset: of images.
    recipe: of all nets.
    asked: what is to be forgotten.
    use_retain: whether the methods may read the retained records.
    rates: learning rates of methods, where they are not the usual ones.
  """

  METRICS = metrics.METRICS
  NOT_PROVEN = metrics.NOT_PROVEN

  def __init__(
    self,
    dataset: Dataset,
    recipe: Recipe,
    *,
    asked: Asked = Asked(),  # noqa: B008  immutable
    use_retain: bool = True,
    rates: Mapping[str, float] | None = None,
  ):
    self.dataset, self.recipe = dataset, recipe
    self._asked, self._use_retain = asked, use_retain
    self._rates = rates or {}
    self.model = from_linen(MODELS[recipe.model](dataset.num_classes))
    self.abstract = jax.eval_shape(
      self.model.init, jax.random.key(0), dataset.train["input"][:1]
    )
    self.everything = tree.concatenate(dataset.train, dataset.test)

  @property
  def title(self) -> str:
    """Of the report."""
    return f"Forgetting records of {self.dataset.name}"

  def tasks(self, seed: int) -> list[Task]:
    """The one request of a seed."""
    request = tasks.request(self.dataset.train, self._asked, seed)
    readable = request if self._use_retain else request._replace(retain=None)
    return [Task(request, readable)]

  def steps(self, name: str, task: Task) -> int:
    """Steps of one model, see `study.Study`."""
    retained = tree.size(task.request.retain)
    if name == "shared":
      return self.recipe.references * self.recipe.training_steps(self.pool // 2)
    if name == "original":
      return self.recipe.training_steps(tree.size(self.dataset.train))
    if name == "retrain":
      return self.recipe.training_steps(retained)
    descends = METHODS[name].learning_rate is not None
    return self.recipe.unlearning_steps(retained) if descends else 0

  def begin(self, tasks: Sequence[Sequence[Task]]) -> None:
    """Trains the reference models of the attack."""
    del tasks
    self.reference_signals()

  def train(self, task: Task | None, seed: int) -> Outcome:
    """The model without what the task forgets; for None, on everything."""
    if task is None:
      return self.fit("original", seed, Request(None, self.dataset.train))
    return self.fit("retrain", seed, task.request)

  def fit(self, name: str, seed: int, request: Request) -> Outcome:
    """A model trained from scratch on the request's retained examples."""
    steps = self.recipe.training_steps(tree.size(request.retain))
    transform = self._trainer(steps)
    key = stage_key(jax.random.key(seed), "train")
    return self.session.phase(
      f"seed{seed}/{name}",
      lambda: transform(key, None, request),
      start=self.abstract,
      steps=steps,
    )

  def unlearn(self, method: str, case: Case[Task]) -> Outcome:
    """What a method makes of the original model."""
    steps = self.steps(method, case.task)
    rate = self._rates.get(method, METHODS[method].learning_rate)
    return self.apply(
      method,
      case.seed,
      self.unlearner(method, rate, steps),
      case.original.params,
      case.task.readable,
      steps=steps,
      track=case.task.request,
    )

  @functools.cache  # noqa: B019  one study lives as long as the run
  def _trainer(self, steps: int) -> Transform:
    return retrain.transform(
      self.model,
      self.recipe.optimizer(self.recipe.learning_rate, steps),
      num_steps=steps,
      batch_size=self.recipe.batch_size,
      loop=self.session.loop,
    )

  @functools.cache  # noqa: B019
  def unlearner(
    self, method: str, learning_rate: float | None, steps: int
  ) -> Transform:
    """A method's transform, made once so that all seeds share its program."""
    entry = METHODS[method]
    if learning_rate is None:
      return entry.make(self.model)
    return entry.make(
      self.model,
      self.recipe.optimizer(learning_rate, steps),
      num_classes=self.dataset.num_classes,
      num_steps=steps,
      batch_size=max(int(self.recipe.batch_size * entry.batch_fraction), 1),
      loop=self.session.loop,
    )

  def apply(
    self,
    name: str,
    seed: int,
    transform: Transform,
    params: Any,
    request: Request,
    *,
    steps: int,
    track: Request | None = None,
  ) -> Outcome:
    """The phase of a transform, from the given params.

    One that takes no `steps` has a curve that ends at 1.
    With `track`, the outcome's curve has the accuracies on that request's
    forgotten and retained examples.
    """
    key = stage_key(jax.random.key(seed), "unlearn")
    evaluate = self._tracker(track) if track else None
    outcome = self.session.phase(
      f"seed{seed}/{name}",
      lambda: transform(key, params, request),
      start=params,
      steps=steps,
      evaluate=evaluate,
      note=_failed_searches,
    )
    if evaluate is None or steps:
      return outcome
    last = [1.0, *evaluate(outcome.params)]
    return outcome._replace(curve=[*outcome.curve, last])

  def _tracker(self, request: Request):
    forget, retain = (
      tree.take(part, slice(_TRACKED))
      for part in (request.forget, request.retain)
    )
    inputs = np.concatenate([forget["input"], retain["input"]])
    split = tree.size(forget)

    def evaluate(params):
      logits = outputs.predict(self.model, params, inputs)
      return (
        utility.accuracy(logits[:split], forget["label"]),
        utility.accuracy(logits[split:], retain["label"]),
      )

    return evaluate

  @functools.cache  # noqa: B019
  def reference_signals(self) -> np.ndarray:
    """Signals `[models, pool]` of the attack's reference models.

    The first use trains them, a phase of its own.
    """
    size, models = self.pool, self.recipe.references
    member = rmia.balanced_membership(0, models, size)
    steps = self.recipe.training_steps(size // 2)
    examples = tree.take(self.everything, slice(size))
    outcome = self.session.phase(
      "references",
      lambda: population.train(
        jax.random.key(0),
        self.model,
        self.recipe.optimizer(self.recipe.learning_rate, steps),
        examples,
        member,
        num_steps=steps,
        batch_size=self.recipe.batch_size,
        loop=self.session.loop,
      ),
      start=jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((models, *leaf.shape), leaf.dtype),
        self.abstract,
      ),
      steps=steps,
      models=models,
    )
    logits = outputs.predict(
      self.model, outcome.params, examples["input"], stacked=True
    )
    return signals.taylor_softmargin(logits, np.asarray(examples["label"]))

  @property
  def pool(self) -> int:
    """Examples that the attack draws on: all, less one if they are odd."""
    return tree.size(self.everything) // 2 * 2

  def audit(self, method: str, outcome: Outcome, case: Case[Task]) -> Evidence:
    """Utility, attacks and distributions of a model."""
    del method
    return self.evidence(
      outcome.params, case.task.request, seed=case.seed, target=case.target
    )

  def evidence(
    self,
    params: Any,
    request: Request,
    *,
    seed: int,
    target: Evidence | None = None,
  ) -> Evidence:
    """The same of params, see `metrics.measure`.

    Args:
      params: the model's.
      request: tells forgotten from retained examples by their ids.
      seed: as there.
      target: as there.
    """
    count = tree.size(self.dataset.train)
    forgotten = np.isin(self.dataset.train["id"], request.forget["id"])
    rows = np.arange(tree.size(self.everything))
    return metrics.measure(
      outputs.predict(self.model, params, self.everything["input"]),
      np.asarray(self.everything["label"]),
      {
        "forget": rows[:count][forgotten],
        "retain": rows[:count][~forgotten],
        "test": rows[count : self.pool],
      },
      references=self.reference_signals(),
      seed=seed,
      target=target,
    )

  def deletion(self, tasks: Sequence[Task]) -> report.Deletion:
    """The request as the page tells it."""
    return report.Deletion(
      ids=tasks[0].request.forget["id"].tolist(),
      total=tree.size(self.dataset.train),
      selection="The ids are those of the first seed.",
      noun="training records",
    )

  def figures(self, findings: Findings) -> list[Any]:
    """The attack, the confidences and the way there."""
    return [
      figures.attack(
        findings,
        "forget_scores",
        "test_scores",
        title="RMIA attack: forgotten against test records",
      ),
      figures.distributions(
        findings, "confidence", x_label="Probability of the true class"
      ),
      figures.progress(
        findings,
        ("forget_accuracy", "retain_accuracy"),
        caption="First seed; the levels are original and retrained.",
      ),
    ]


def _failed_searches(info: Any) -> dict[str, float]:
  """Adversarial searches that failed, where a method searched."""
  if "attack" not in info:
    return {}
  return {"failed": float(info["attack"]["failed"])}
