"""The pictures of a network: what was left where, and how it went away."""

from collections.abc import Sequence
from typing import Any

from experiments.decentralized.tasks import Network
from experiments.run.findings import Findings
from junlearn import report


def left(findings: Findings, network: Network, corrected: Sequence[str]) -> Any:
  """The graph, before and after each of the methods that correct it."""
  original = findings.first("original")
  return report.network(
    network.adjacency,
    [
      report.Nodes("Predicted influence", original["influence"]),
      report.Nodes("Distance before", original["distances"]),
      *(
        report.Nodes(
          f"Distance after {method}",
          findings.first(method)["distances_before_noise"],
        )
        for method in corrected
      ),
    ],
    title="What the records left at each client",
    marked=network.asked,
    caption="Norms of parameters, first seed, before noise is added. The "
    "client with the thick rim was asked to forget; the prediction needs no "
    "retraining.",
  )


def progress(findings: Findings) -> Any:
  """The distance to retraining along the communication rounds."""
  return report.series(
    [
      report.Series(method, *findings.first(method)["curve"].T)
      for method in findings.unlearned
    ],
    title="Error to retraining per communication round",
    x_label="Communication rounds",
    y_label="Distance to the retrained network",
    scales=("linear", "log"),
    caption="First seed, before noise.",
  )
