"""Training, unlearning and auditing an image classifier, phase by phase.

Shared by the main job (`experiments.classification`) and the claims.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments.run.session import Outcome, Session
from junlearn import nn, tree
from junlearn.audit import (
  gap,
  membership,
  population,
  predict,
  rmia,
  signals,
  utility,
)
from junlearn.data import Dataset
from junlearn.methods import (
  amun,
  ascent,
  finetune,
  fisher_forget,
  grad_difference,
  influence,
  random_label,
  retrain,
)
from junlearn.model import Model, from_linen
from junlearn.transform import Request, Transform, stage_key

MODELS = {"cnn": nn.CNN, "mlp": nn.MLP, "resnet18": nn.ResNet18}
AVERAGED = ("forget_accuracy", "retain_accuracy", "test_accuracy", "rmia_auc")
_FEATURES = ("confidence", "modified_entropy")  # of the simple attacks
_TRACKED = 500  # examples of each kind on which a curve is measured


class Method(NamedTuple):
  """A method that descends, as the experiments call it.

  Attributes:
    make: `(model, optimizer, num_classes=, **options) -> Transform`.
    learning_rate: the default, chosen on digits by the claims' grid search
      (experiments/results/claims_digits.md).
    share: of the batch size that each part gets; a method that reads two
      parts a step gets half of each, so that all see as many examples.
    needs_retain: whether it cannot do without the retained examples.
  """

  make: Callable[..., Transform]
  learning_rate: float
  share: float = 1.0
  needs_retain: bool = False


def _without_classes(transform):
  """Adapts a transform that does not ask for the number of classes."""

  @functools.wraps(transform)
  def make(model, optimizer, *, num_classes, **options):
    del num_classes
    return transform(model, optimizer, **options)

  return make


DESCENTS: Mapping[str, Method] = {
  "finetune": Method(
    _without_classes(finetune.transform), 0.1, needs_retain=True
  ),
  "ascent": Method(_without_classes(ascent.transform), 0.001),
  "grad_difference": Method(
    _without_classes(grad_difference.transform),
    0.1,
    share=0.5,
    needs_retain=True,
  ),
  "random_label": Method(random_label.transform, 0.003),
  "amun": Method(_without_classes(amun.transform), 0.1),
  "amun_deletion": Method(
    _without_classes(functools.partial(amun.transform, use_forget=False)), 0.03
  ),
}

# Methods of one step, without optimiser and budget; both need the retained
# examples. The damping is what came closest to retraining on digits, seed 0;
# alpha is the released one, and no other did better there.
CORRECTIONS: Mapping[str, Callable[[Model], Transform]] = {
  "influence": functools.partial(
    influence.transform, damping=3e-3, batch_size=256
  ),
  "fisher_forget": functools.partial(fisher_forget.transform, alpha=1e-6),
}

METHODS = (*DESCENTS, *CORRECTIONS)


class Recipe(NamedTuple):
  """How a net is trained from scratch, and what unlearning may cost.

  Attributes:
    model: key of `MODELS`.
    epochs: of training, retraining and the reference models.
    unlearn_epochs: budget of every method, in passes over the retained set.
    learning_rate: of training; a cosine schedule takes it to 0.
    batch_size: examples a step.
    momentum: of SGD, everywhere.
    weight_decay: L2, everywhere.
    references: reference models of the attack, an even number.
  """

  model: str = "cnn"
  epochs: int = 40
  unlearn_epochs: int = 8
  learning_rate: float = 0.05
  batch_size: int = 64
  momentum: float = 0.9
  weight_decay: float = 5e-4
  references: int = 16


class Evidence(NamedTuple):
  """What an audit measured.

  Attributes:
    metrics: numbers by name.
    arrays: per-example values behind them, for figures.
  """

  metrics: dict[str, float]
  arrays: dict[str, np.ndarray]


class Study:
  """One data set, one recipe; every training is a phase of the session."""

  def __init__(self, dataset: Dataset, recipe: Recipe, session: Session):
    self.dataset, self.recipe = dataset, recipe
    self.session = session
    self.model = from_linen(MODELS[recipe.model](dataset.num_classes))
    self.abstract = jax.eval_shape(
      self.model.init, jax.random.key(0), dataset.train["input"][:1]
    )
    self.everything = tree.concatenate(dataset.train, dataset.test)

  def optimizer(
    self, learning_rate: float, num_steps: int
  ) -> optax.GradientTransformation:
    """SGD with momentum, weight decay and a cosine schedule to 0.

    The rate is part of the state and no constant of the program, so that all
    rates share one compiled program.
    """
    schedule = optax.cosine_decay_schedule(1.0, max(num_steps, 1))
    return optax.chain(
      optax.add_decayed_weights(self.recipe.weight_decay),
      optax.sgd(schedule, self.recipe.momentum),
      optax.inject_hyperparams(optax.scale)(step_size=learning_rate),
    )

  def train(self, name: str, seed: int, request: Request) -> Outcome:
    """A model trained from scratch on the request's retained examples."""
    steps = training_steps(self.recipe, tree.size(request.retain))
    transform = self._trainer(steps)
    key = stage_key(jax.random.key(seed), "train")
    return self.session.phase(
      f"seed{seed}/{name}",
      lambda: transform(key, None, request),
      start=self.abstract,
      steps=steps,
    )

  @functools.cache  # noqa: B019  one study lives as long as the run
  def _trainer(self, steps: int) -> Transform:
    return retrain.transform(
      self.model,
      self.optimizer(self.recipe.learning_rate, steps),
      num_steps=steps,
      batch_size=self.recipe.batch_size,
      loop=self.session.loop,
    )

  @functools.cache  # noqa: B019
  def unlearner(
    self, method: str, learning_rate: float, steps: int
  ) -> Transform:
    """A descent's transform, made once so that all seeds share its program."""
    entry = DESCENTS[method]
    return entry.make(
      self.model,
      self.optimizer(learning_rate, steps),
      num_classes=self.dataset.num_classes,
      num_steps=steps,
      batch_size=max(int(self.recipe.batch_size * entry.share), 1),
      loop=self.session.loop,
    )

  @functools.cache  # noqa: B019
  def corrector(self, method: str) -> Transform:
    """A correction's transform, made once as those of descents are."""
    return CORRECTIONS[method](self.model)

  def unlearn(
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
    """The phase of an unlearning method, from the given params.

    A correction takes no `steps`, and its curve ends at 1.
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
      logits = predict.predict(self.model, params, inputs)
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
    steps = training_steps(self.recipe, size // 2)
    examples = tree.take(self.everything, slice(size))
    outcome = self.session.phase(
      "references",
      lambda: population.train(
        jax.random.key(0),
        self.model,
        self.optimizer(self.recipe.learning_rate, steps),
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
    logits = predict.predict(
      self.model, outcome.params, examples["input"], stacked=True
    )
    return signals.taylor_softmargin(logits, np.asarray(examples["label"]))

  @property
  def pool(self) -> int:
    """Examples that the attack draws on: all, less one if they are odd."""
    return tree.size(self.everything) // 2 * 2

  def audit(
    self,
    params: Any,
    request: Request,
    *,
    seed: int,
    retrained: Evidence | None = None,
  ) -> Evidence:
    """Utility, attacks and distributions of a model.

    Args:
      params: the model's.
      request: tells forgotten from retained examples by their ids.
      seed: of sub-samples and bootstraps.
      retrained: the retrained model's evidence, for distances to it; None if
        this is the retrained model.
    """
    logits = predict.predict(self.model, params, self.everything["input"])
    labels = np.asarray(self.everything["label"])
    count = tree.size(self.dataset.train)
    forgotten = np.isin(self.dataset.train["id"], request.forget["id"])
    rows = np.arange(len(labels))
    parts = {
      "forget": rows[:count][forgotten],
      "retain": rows[:count][~forgotten],
      "test": rows[count : self.pool],
    }
    outputs = {k: (logits[i], labels[i]) for k, i in parts.items()}
    scores = rmia.online(
      signals.taylor_softmargin(logits, labels)[: self.pool],
      self.reference_signals(),
    )
    attack = membership.roc(
      scores[parts["forget"]], scores[parts["test"]], seed=seed
    )
    svc = membership.svc_attack(**outputs, seed=seed, features=_FEATURES)
    threshold = membership.threshold_attack(**outputs, features=_FEATURES)
    arrays = {
      "confidence": signals.confidence(*outputs["forget"]),
      "entropy": signals.entropy(*outputs["forget"]),
      "test_confidence": signals.confidence(*outputs["test"]),
      "forget_scores": scores[parts["forget"]],
      "test_scores": scores[parts["test"]],
    }
    metrics = {
      f"{part}_accuracy": utility.accuracy(*outputs[part]) for part in parts
    } | {
      "rmia_auc": attack.auc.value,
      "rmia_auc_low": attack.auc.low,
      "rmia_auc_high": attack.auc.high,
      "rmia_advantage": attack.advantage.value,
      "taylor_clipped": float(np.mean(signals.taylor_clipped(logits, labels))),
      "rmia_tpr": attack.tpr_at_fpr.value,
      "rmia_tpr_low": attack.tpr_at_fpr.low,
      "rmia_tpr_high": attack.tpr_at_fpr.high,
      **{f"svc_{feature}": svc[feature] for feature in _FEATURES},
      **{f"threshold_{feature}": threshold[feature] for feature in _FEATURES},
      "forget_confidence": float(np.mean(arrays["confidence"])),
      "confidence_ks_test": utility.ks_distance(
        arrays["confidence"], arrays["test_confidence"]
      ),
    }
    reference = retrained or Evidence(metrics, arrays)
    metrics |= {
      f"{name}_ks": utility.ks_distance(arrays[name], reference.arrays[name])
      for name in ("confidence", "entropy")
    }
    metrics["average_gap"] = gap.average_gap(
      metrics, reference.metrics, AVERAGED
    )
    return Evidence(metrics, arrays)


def training_steps(recipe: Recipe, examples: int) -> int:
  """Steps of training from scratch on so many examples."""
  return recipe.epochs * -(-examples // recipe.batch_size)


def unlearning_steps(recipe: Recipe, retained: int) -> int:
  """Steps that every method may take."""
  return recipe.unlearn_epochs * -(-retained // recipe.batch_size)


def _failed_searches(info: Any) -> dict[str, float]:
  """Adversarial searches that failed, where a method searched."""
  if "attack" not in info:
    return {}
  return {"failed": float(info["attack"]["failed"])}
