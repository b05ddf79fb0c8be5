"""What is measured of a model, and what each number means."""

from experiments.run.study import Evidence
from junlearn.audit import membership, outputs, signals, utility
from junlearn.report import Metric

METRICS = (
  Metric("test_accuracy", "Test accuracy", "%", 100, "On unseen rows."),
  Metric("forget_accuracy", "Forget accuracy", "%", 100, "On forgotten rows."),
  Metric(
    "attack_auc",
    "Attack AUC",
    help="How well the loss tells forgotten from unseen rows.",
    forgetting=-1,
    chance=0.5,
  ),
)
NOT_PROVEN = ("A better attack may find what this one does not.",)


def measure(model, params, parts, *, seed) -> Evidence:
  """The metrics, and the attack's scores, of the parts `forget` and `test`."""
  found, scores = {}, {}
  for name, part in parts.items():
    logits = outputs.predict(model, params, part["input"])
    found[f"{name}_accuracy"] = utility.accuracy(logits, part["label"])
    scores[name] = -signals.loss(logits, part["label"])
  attack = membership.roc(scores["forget"], scores["test"], seed=seed)
  return Evidence({**found, "attack_auc": attack.auc.value}, scores)
