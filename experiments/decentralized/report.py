"""The report of a run of `experiments.decentralized`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.decentralized.study import METHODS, Network, Study, records
from experiments.release import report as release_report
from experiments.run.workdir import Workdir
from junlearn import report
from junlearn.report import Metric

METRICS = (
  Metric(
    "forget_accuracy",
    "Forget accuracy",
    "%",
    100,
    "Accuracy on the records to be forgotten, mean over clients.",
    forgetting=-1,
  ),
  Metric(
    "test_accuracy",
    "Test accuracy",
    "%",
    100,
    "Accuracy on records that nobody was trained on, mean over clients.",
  ),
  Metric(
    "worst_test_accuracy",
    "Worst client's test accuracy",
    "%",
    100,
    "The same at the client where it is lowest.",
    span=None,
  ),
  Metric(
    "attack_auc",
    "Attack AUC",
    help="How well the confidence tells forgotten from test records, mean over "
    "clients.",
    forgetting=-1,
    chance=0.5,
  ),
  Metric(
    "worst_attack_auc",
    "Worst client's attack AUC",
    help="The same at the client where it tells most.",
    span=None,
    forgetting=-1,
    chance=0.5,
  ),
  Metric(
    "distance",
    "Distance",
    help="Frobenius distance of all clients' models to the retrained ones, "
    "noise included.",
    compare=False,
    digits=4,
  ),
  Metric(
    "exchanges",
    "Exchanges",
    help="Exchanges with the neighbours that the method takes.",
    compare=False,
    digits=0,
  ),
)

NOT_PROVEN = (
  "A certificate covers the released models, not the time or the number of "
  "steps taken, and not what was sent before: neighbours may still hold models "
  "from before the deletion.",
  "It compares with training by the same rounds and the same noise without the "
  "records (consensus: with the minimiser of the mean risk), on what it lists "
  "as stated.",
  release_report.BUDGET,
  release_report.EACH,
  release_report.PAGE,
  "finetune carries no certificate.",
)


def write(
  workdir: Workdir,
  study: Study,
  networks: Sequence[Network],
  releases: Sequence[str],
) -> Path:
  """Writes the page from the rows and evidence that the run left.

  Pictures show the first seed. `releases` are the names of those made.
  """
  recipe, first = study.recipe, networks[0]
  methods = list(dict.fromkeys(row["method"] for row in workdir.rows))
  arrays = {
    method: workdir.read_arrays(f"evidence/seed0/{method}.npz")
    for method in [*methods, "influence"]
  }
  certified = [method for method in methods if METHODS.get(method)]
  figures = [
    report.network(
      first.adjacency,
      [
        report.Nodes("Predicted influence", arrays["influence"]["norm"]),
        report.Nodes("Distance before", arrays["original"]["distances"]),
        *(
          report.Nodes(f"Distance after {m}", arrays[m]["corrected"])
          for m in certified
        ),
      ],
      title="What the records left at each client",
      marked=_asked(first),
      caption="Norms of parameters, first seed, before noise is added. The "
      "client with the thick rim was asked to forget; the prediction needs no "
      "retraining.",
    ),
    report.series(
      [report.Series(m, *arrays[m]["curve"].T) for m in methods[2:]],
      title="Error to retraining per exchange",
      x_label="Exchanges with the neighbours",
      y_label="Distance to the retrained network",
      scales=("linear", "log"),
      caption="First seed, before noise.",
    ),
  ]
  if certified:
    issued = release_report.read(workdir, releases[len(first.requests) - 1])
    figures.append(release_report.calibration(issued, recipe.terms))
  return workdir.write_report(
    title=f"Forgetting records of {study.dataset.name} in a network",
    request=report.Deletion(
      ids=records(first.request.forget)["id"].tolist(),
      total=int(np.sum(np.asarray(first.clients["weight"]))),
      selection="The ids are those of the first seed.",
      noun="training records",
      private=bool(certified),
    ),
    metrics=METRICS,
    not_proven=NOT_PROVEN,
    figures=figures,
    certificate=release_report.public(issued) if certified else None,
  )


def _asked(network: Network) -> int | None:
  """The client that holds what is to be forgotten, if it is one."""
  holding = np.asarray(network.request.forget["weight"]).sum(1) > 0
  return int(np.argmax(holding)) if holding.sum() == 1 else None
