"""What is measured of an image classifier, and what each number means.

Utility, attacks and distributions, all on logits that were computed once.
"""

from collections.abc import Mapping

import numpy as np

from experiments.run.study import Evidence
from junlearn.audit import gap, membership, rmia, signals, utility
from junlearn.report import Metric

AVERAGED = ("forget_accuracy", "retain_accuracy", "test_accuracy", "rmia_auc")
_FEATURES = ("confidence", "modified_entropy")  # of the simple attacks

ACCURACIES = (
  Metric(
    "forget_accuracy",
    "Forget accuracy",
    "%",
    100,
    "Accuracy on the records to be forgotten.",
    forgetting=-1,
  ),
  Metric(
    "retain_accuracy",
    "Retain accuracy",
    "%",
    100,
    "Accuracy on the training records that stay.",
  ),
  Metric(
    "test_accuracy",
    "Test accuracy",
    "%",
    100,
    "Accuracy on records that no model was trained on.",
  ),
)

METRICS = (
  *ACCURACIES,
  Metric(
    "rmia_auc",
    "RMIA AUC",
    help="How well the RMIA attack tells forgotten from test records.",
    forgetting=-1,
    chance=0.5,
  ),
  *(
    Metric(
      f"rmia_auc_{bound}",
      f"RMIA AUC, {bound} end",
      help=f"The {bound} end of the attack's 95 % bootstrap interval over "
      "records.",
      compare=False,
    )
    for bound in ("low", "high")
  ),
  Metric(
    "rmia_tpr",
    "RMIA TPR at 1 % FPR",
    "%",
    100,
    "Forgotten records found while 1 % of test records are accused.",
    span=None,
    forgetting=-1,
  ),
  Metric(
    "svc_confidence",
    "SVC-MIA efficacy",
    "%",
    100,
    "Forgotten records that an SVC on the confidence calls non-members.",
    span=None,
    forgetting=1,
  ),
  Metric(
    "forget_confidence",
    "Forget confidence",
    help="Mean probability of the true class on the forgotten records.",
    span=None,
    forgetting=-1,
  ),
  Metric(
    "confidence_ks",
    "KS of confidence",
    help="Kolmogorov-Smirnov distance of the forgotten records' confidences "
    "to the retrained model's.",
    span=None,
  ),
  Metric(
    "entropy_ks",
    "KS of entropy",
    help="Kolmogorov-Smirnov distance of the entropies of the forgotten "
    "records' predictions to the retrained model's.",
    span=None,
  ),
)

NOT_PROVEN = (
  "The numbers are empirical: they bound what these attacks found, not what a "
  "better attack could find. No method here carries a certificate.",
  "The attack's interval covers the choice of records, not of training seeds; "
  "the spread over seeds stands beside each mean.",
  "Being close to one retrained model in these metrics is not being "
  "distributed like retrained models.",
  "AMUN as published goes on training on the forgotten records with their true "
  "labels; where the request is a legal deletion, use amun_deletion.",
  "The default learning rates were chosen on digits, on other seeds, and those "
  "of the presets likewise on their data, by the average gap to retraining: an "
  "oracle that a deployment without retraining does not have. Other settings "
  "may need other rates.",
)


def measure(
  logits: np.ndarray,
  labels: np.ndarray,
  parts: Mapping[str, np.ndarray],
  *,
  references: np.ndarray,
  seed: int,
  target: Evidence | None = None,
) -> Evidence:
  """Utility, attacks and distributions of a model.

  Args:
    logits: `[n, classes]` of all records.
    labels: `[n]`.
    parts: rows of `forget`, `retain` and `test`.
    references: signals `[models, pool]` of the attack's reference models on
      the first `pool` records.
    seed: of sub-samples and bootstraps.
    target: the retrained model's evidence, for distances to it; None if this
      is the retrained model.
  """
  outputs = {name: (logits[rows], labels[rows]) for name, rows in parts.items()}
  scores = rmia.online(
    signals.taylor_softmargin(logits, labels)[: references.shape[1]],
    references,
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
  reference = target or Evidence(metrics, arrays)
  metrics |= {
    f"{name}_ks": utility.ks_distance(arrays[name], reference.arrays[name])
    for name in ("confidence", "entropy")
  }
  metrics["average_gap"] = gap.average_gap(metrics, reference.metrics, AVERAGED)
  return Evidence(metrics, arrays)
