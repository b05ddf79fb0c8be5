"""What is measured of a model in each scenario, and what each number means."""

from typing import Any

import jax
import numpy as np

from experiments.feature.tasks import TARGET, Task
from junlearn.audit import outputs, sensitivity, utility
from junlearn.data import feature
from junlearn.model import Model
from junlearn.report import Metric

NOT_PROVEN = (
  "Feature unlearning carries no certificate: nothing bounds what a better "
  "attack would still find of the feature.",
  "Any constant model has no sensitivity at all. Only the stopping rule holds "
  "on to accuracy, and the rule sees the asking client's examples alone.",
  "What is forgotten is noise on the marked values, of scales from 0.05 to 1. "
  "Other changes of the feature are not covered.",
  "The learning rates were chosen on seeds of their own by the distance to "
  "retraining: an oracle that a deployment does not have.",
)


def _percent(name: str, label: str, help: str, **options) -> Metric:
  return Metric(name, label, "%", 100, help, **options)


_TEST_ACCURACY = _percent(
  "test_accuracy",
  "Test accuracy",
  "Accuracy on examples as they are, that no client has.",
)
_COMMON = (
  Metric(
    "sensitivity",
    "Sensitivity",
    help="Change of the logits over change of the input, for noise on the "
    "feature of test examples.",
    span=None,
    forgetting=-1,
  ),
  Metric(
    "sensitivity_probabilities",
    "Sensitivity of probabilities",
    help="Change of the probabilities over change of the input: scaling the "
    "logits alone moves it little.",
    span=None,
    forgetting=-1,
  ),
  Metric(
    "sensitivity_relative",
    "Relative sensitivity",
    help="Sensitivity of the logits, divided by their norm: their scale "
    "cancels.",
    span=None,
    forgetting=-1,
  ),
  Metric(
    "steps",
    "Steps",
    help="Steps until the stopping rule held.",
    compare=False,
    digits=0,
  ),
)

BACKDOOR = (
  _TEST_ACCURACY,
  _percent(
    "attack_success",
    "Attack success",
    "Test images of other classes that the trigger turns into its target.",
    forgetting=-1,
    chance=0.0,
  ),
  _percent(
    "recovered",
    "Recovered",
    "Test images with the trigger that are classified by their own label.",
    span=None,
    forgetting=1,
  ),
  *_COMMON,
)


def backdoor(model: Model, params: Any, task: Task) -> dict[str, float]:
  """Whether the trigger still works, and what is right without it."""
  clean, stamped = task.tests["clean"], task.tests["stamped"]
  logits = outputs.predict(model, params, stamped["input"])
  return {
    "test_accuracy": accuracy(model, params, clean),
    "attack_success": sensitivity.attack_success(
      logits, stamped["true_label"], target=TARGET
    ),
    "recovered": utility.accuracy(logits, stamped["true_label"]),
    **_sensitivities(model, params, clean),
  }


BIAS = (
  _percent(
    "unbiased_accuracy",
    "Unbiased accuracy",
    "Accuracy on test images whose color says nothing.",
  ),
  _percent(
    "biased_accuracy",
    "Biased accuracy",
    "Accuracy on test images whose color tells their label.",
  ),
  _percent(
    "accuracy_gap",
    "Gap",
    "Absolute difference of biased and unbiased accuracy.",
    span=None,
    forgetting=-1,
  ),
  *_COMMON,
)


def bias(model: Model, params: Any, task: Task) -> dict[str, float]:
  """Whether images whose color tells their label are told more easily."""
  biased, unbiased = (
    accuracy(model, params, task.tests[name]) for name in ("biased", "unbiased")
  )
  return {
    "unbiased_accuracy": unbiased,
    "biased_accuracy": biased,
    "accuracy_gap": abs(biased - unbiased),
    **_sensitivities(model, params, task.tests["unbiased"]),
  }


SENSITIVE = (
  _TEST_ACCURACY,
  _percent(
    "flip_rate",
    "Flip rate",
    "Predictions that change when the attribute does.",
    forgetting=-1,
  ),
  _percent(
    "inversion_success",
    "Inversion success",
    "Attributes that an attacker guesses right who knows everything else; "
    "50 % for a model that ignores the attribute.",
    span=None,
    forgetting=-1,
    chance=0.5,
  ),
  Metric(
    "other_sensitivity",
    "Other columns",
    help="Mean sensitivity to each of the other columns.",
    span=None,
  ),
  *_COMMON,
)


def sensitive(model: Model, params: Any, task: Task) -> dict[str, float]:
  """Whether predictions depend on the column, and on the others."""
  clean, flipped = task.tests["clean"], task.tests["flipped"]
  as_is, other = (
    outputs.predict(model, params, part["input"]) for part in (clean, flipped)
  )
  width = clean["input"].shape[1]
  others = [
    feature_sensitivity(
      model, params, {**clean, "mask": feature.column(width, index)}
    )
    for index in range(width)
    if index != task.column
  ]
  return {
    "test_accuracy": utility.accuracy(as_is, clean["label"]),
    "flip_rate": sensitivity.flip_rate(as_is, other),
    "inversion_success": sensitivity.inversion_success(
      as_is, other, clean["label"]
    ),
    **_sensitivities(model, params, clean),
    "other_sensitivity": float(np.mean(others)),
  }


def accuracy(model: Model, params: Any, examples: dict[str, Any]) -> float:
  """On examples as they are."""
  logits = outputs.predict(model, params, examples["input"])
  return utility.accuracy(logits, examples["label"])


def feature_sensitivity(
  model: Model, params: Any, examples: dict[str, Any], *, of: str = "logits"
) -> float:
  """On the examples' mask, with the same perturbations for all models."""
  return sensitivity.feature_sensitivity(
    jax.random.key(0), model, params, examples["input"], examples["mask"], of=of
  )


def _sensitivities(model, params, examples):
  names = {
    "sensitivity": "logits",
    "sensitivity_probabilities": "probabilities",
    "sensitivity_relative": "relative",
  }
  return {
    name: feature_sensitivity(model, params, examples, of=of)
    for name, of in names.items()
  }
