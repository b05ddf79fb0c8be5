"""The report of a run of `experiments.feature`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.feature.study import Study
from experiments.feature.tasks import Task
from experiments.run.workdir import Workdir
from junlearn import report
from junlearn.report import Metric


def _rate(name: str, label: str, help: str, **options) -> Metric:
  return Metric(name, label, "%", 100, help, **options)


_SENSITIVITIES = (
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
    "On probabilities",
    help="The same of the probabilities: scaling the logits alone moves it "
    "little.",
    span=None,
    forgetting=-1,
  ),
  Metric(
    "sensitivity_relative",
    "Relative",
    help="The same of the logits, divided by their norm: their scale cancels.",
    span=None,
    forgetting=-1,
  ),
)
_TEST_ACCURACY = _rate(
  "test_accuracy",
  "Test accuracy",
  "Accuracy on examples as they are, that no client has.",
)
_METRICS = {
  "backdoor": (
    _TEST_ACCURACY,
    _rate(
      "attack_success",
      "Attack success",
      "Test images of other classes that the trigger turns into its target.",
      forgetting=-1,
      chance=0.0,
    ),
    _rate(
      "recovered",
      "Recovered",
      "Test images with the trigger that are classified by their own label.",
      span=None,
      forgetting=1,
    ),
    *_SENSITIVITIES,
  ),
  "bias": (
    _rate(
      "unbiased_accuracy",
      "Unbiased accuracy",
      "Accuracy on test images whose colour says nothing.",
    ),
    _rate(
      "biased_accuracy",
      "Biased accuracy",
      "Accuracy on test images whose colour tells their label.",
    ),
    _rate(
      "accuracy_gap",
      "Gap",
      "Absolute difference of the two.",
      span=None,
      forgetting=-1,
    ),
    *_SENSITIVITIES,
  ),
  "sensitive": (
    _TEST_ACCURACY,
    _rate(
      "flip_rate",
      "Flip rate",
      "Predictions that change when the attribute does.",
      forgetting=-1,
    ),
    _rate(
      "inversion_success",
      "Inversion success",
      "Attributes that an attacker guesses right who knows everything else; "
      "50 % for a model that ignores the attribute.",
      span=None,
      forgetting=-1,
      chance=0.5,
    ),
    *_SENSITIVITIES,
    Metric(
      "other_sensitivity",
      "Other columns",
      help="Mean sensitivity to each of the other columns.",
      span=None,
    ),
  ),
}
_STEPS = Metric(
  "steps",
  "Steps",
  help="Steps until the stopping rule held.",
  compare=False,
  digits=0,
)

_NOT_PROVEN = (
  "Feature unlearning carries no certificate: nothing bounds what a better "
  "attack would still find of the feature.",
  "Any constant model has no sensitivity at all. Only the stopping rule holds "
  "on to accuracy, and the rule sees the asking client's examples alone.",
  "What is forgotten is noise on the marked values, of scales from 0.05 to 1. "
  "Other changes of the feature are not covered.",
  "The learning rates were chosen on seeds of their own by the distance to "
  "retraining: an oracle that a deployment does not have.",
)
_ASKED = {
  "backdoor": "The examples of the first client, first seed; what is forgotten "
  "is the trigger in their corner, not the records. Retraining goes without "
  "this client.",
  "bias": "The examples of the first client, first seed; what is forgotten is "
  "their colour. Retraining goes without this client.",
  "sensitive": "The records of the first client, first seed; what is forgotten "
  "is one column. The retrained model is trained by all clients and never sees "
  "that column.",
}


def write(workdir: Workdir, study: Study, tasks: Sequence[Task]) -> Path:
  """Writes the page from the rows and evidence that the run left.

  Curves show the first seed.
  """
  methods = list(dict.fromkeys(row["method"] for row in workdir.rows))
  references = ["original", "retrain"]
  unlearned = [m for m in methods if m not in references]
  accuracy = study.scenario.compared[0]
  label = next(
    m.label for m in _METRICS[study.name] if m.name == accuracy
  ).lower()
  curves = {
    method: workdir.read_arrays(f"evidence/seed0/{method}.npz")["curve"]
    for method in unlearned
  }

  def point(method):
    metrics = workdir.row(method, 0)["metrics"]
    return metrics["sensitivity"], metrics[accuracy]

  figures = [
    report.series(
      [
        *(report.Series(m, *np.transpose([point(m)])) for m in references),
        *(report.Series(m, c[:, 1], c[:, 2]) for m, c in curves.items()),
      ],
      title="Accuracy against sensitivity",
      x_label="Sensitivity to the feature",
      y_label=f"{label.capitalize()}",
      caption="First seed. Each line begins at the original and moves with the "
      "steps; the dots are the original and the retrained model.",
    ),
    report.trajectories(
      [
        *(report.Curve(m, [0], *np.transpose([point(m)])) for m in references),
        *(
          report.Curve(m, _share(c[:, 0]), c[:, 1], c[:, 2])
          for m, c in curves.items()
        ),
      ],
      labels=("Sensitivity", label.capitalize()),
      x_label="Share of the budget of steps (%)",
      caption="First seed; the levels are original and retrained. A line is "
      "flat once its method has stopped.",
    ),
  ]
  first = tasks[0]
  return workdir.write_report(
    title=f"Forgetting a feature: {study.name}",
    request=report.Deletion(
      ids=first.forget["id"].tolist(),
      total=int(first.clients["weight"].sum()),
      selection=_ASKED[study.name],
    ),
    metrics=(*_METRICS[study.name], _STEPS),
    not_proven=_NOT_PROVEN,
    figures=figures,
  )


def _share(steps: np.ndarray) -> np.ndarray:
  """Rounds of one method and steps of another on one axis."""
  return 100 * steps / steps[-1]
