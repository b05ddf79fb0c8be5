"""The report of a run of `experiments.classification`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn import metrics as sklearn_metrics

from experiments.classification.study import Study
from experiments.run.workdir import Workdir
from junlearn import report, tree
from junlearn.report import Metric
from junlearn.transform import Request

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
    help="The same for the entropy of the predictions.",
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


def write(workdir: Workdir, study: Study, requests: Sequence[Request]) -> Path:
  """Writes the page from the rows and evidence that the run left.

  Distributions and ROC curves pool the seeds; the curves of the first seed
  stand for the others.
  """
  methods = list(dict.fromkeys(row["method"] for row in workdir.rows))
  methods.sort(key=lambda name: name not in ("original", "retrain"))
  evidence = {
    method: [
      workdir.read_arrays(f"evidence/seed{seed}/{method}.npz")
      for seed in range(len(requests))
    ]
    for method in methods
  }

  def pooled(method, name):
    return np.concatenate([arrays[name] for arrays in evidence[method]])

  def attack(method):
    scores = [pooled(method, f"{part}_scores") for part in ("forget", "test")]
    truth = np.repeat([1, 0], [len(part) for part in scores])
    fpr, tpr, _ = sklearn_metrics.roc_curve(truth, np.concatenate(scores))
    return report.Roc(method, fpr, tpr)

  def course(method):
    curve = evidence[method][0]["curve"]
    return report.Curve(method, curve[:, 0], curve[:, 1], curve[:, 2])

  def level(method):
    row = workdir.row(method, 0)["metrics"]
    values = [row["forget_accuracy"]], [row["retain_accuracy"]]
    return report.Curve(method, [0], *values)

  unlearned = [m for m in methods if m not in ("original", "retrain")]
  figures = [
    report.roc(
      [attack(method) for method in methods],
      title="RMIA attack: forgotten against test records",
    ),
    report.distributions(
      [report.Values(m, pooled(m, "confidence")) for m in methods],
      x_label="Probability of the true class",
    ),
    report.trajectories(
      [level("original"), level("retrain"), *map(course, unlearned)],
      caption="First seed; the levels are original and retrained.",
    ),
  ]
  return workdir.write_report(
    title=f"Forgetting records of {study.dataset.name}",
    request=report.Deletion(
      ids=requests[0].forget["id"].tolist(),
      total=tree.size(study.dataset.train),
      selection="The ids are those of the first seed.",
      noun="training records",
    ),
    metrics=METRICS,
    not_proven=NOT_PROVEN,
    figures=figures,
  )
