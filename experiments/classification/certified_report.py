"""The report of a run of `experiments.classification --certify`."""

from pathlib import Path

from experiments.classification import report as image_report
from experiments.classification.certified import Problem
from experiments.release import report as release_report
from experiments.run.workdir import Workdir
from junlearn import report, tree
from junlearn.report import Metric

METRICS = (
  *image_report.ACCURACIES,
  Metric(
    "attack_auc",
    "Attack AUC",
    help="How well the confidence tells forgotten from test records.",
    forgetting=-1,
    chance=0.5,
  ),
  Metric(
    "distance",
    "Distance",
    help="To the params of retraining, noise included.",
    compare=False,
    digits=4,
  ),
)

NOT_PROVEN = (
  "A certificate covers the released params alone: not how long the deletion "
  "took nor whether it came to a release, and nothing that was given out "
  "before it.",
  "It compares with the optimum without the records, reached by any training, "
  "and the same noise, on what it lists as stated: with features, that their "
  "net has seen none of the records.",
  "Records that are not asked for are not protected: the guarantee is about "
  "those that were deleted.",
  release_report.BUDGET,
  release_report.EACH,
  release_report.PAGE,
)


def write(workdir: Workdir, problem: Problem, release: str) -> Path:
  """Writes the page from the rows that the run left.

  `release` is the name of the one whose certificate is shown.
  """
  issued = release_report.read(workdir, release)
  return workdir.write_report(
    title=f"Forgetting records of {problem.dataset.name} with a certificate",
    request=report.Deletion(
      ids=problem.requests[0][-1].forget["id"].tolist(),
      total=tree.size(problem.dataset.train),
      selection="The number is that of the first seed.",
      noun="training records",
      private=True,
    ),
    metrics=METRICS,
    not_proven=NOT_PROVEN,
    figures=[release_report.calibration(issued, problem.terms)],
    certificate=release_report.public(issued),
  )
