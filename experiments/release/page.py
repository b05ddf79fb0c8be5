"""What the pages of certified runs say of their releases."""

import json
from typing import Any

import numpy as np

from experiments.release.names import Name
from experiments.release.terms import Terms
from experiments.run.workdir import Workdir
from junlearn import report
from junlearn.certify import calibrate

BUDGET = (
  "The budget is that of all releases of this run together, whatever their "
  "method and seed. Another run on the same data spends its own on top: two "
  "at epsilon 1 and delta 1e-5 have an epsilon of 1.47 together."
)
EACH = (
  "A release forgets its own request alone; what another seed, or a later "
  "request, was to forget it still knows. Seeds are repetitions: send out one. "
  "Of successive requests, send out only the last release from then on."
)
PAGE = (
  "This page itself is not covered: its figures were measured on the records "
  "to be forgotten, some of them on models without noise. It is for who audits "
  "the deletion; what may be sent out are the params below `releases`."
)
# Of a certificate, what was measured of the records.
_MEASURED = frozenset({"measured", "hashes", "seeds"})


def certificate(workdir: Workdir, name: Name) -> dict[str, Any]:
  """The certificate of a release."""
  return json.loads(workdir.read(f"releases/{name}/certificate.json"))


def public(issued: dict[str, Any]) -> dict[str, Any]:
  """What a page may show of a certificate."""
  return {k: v for k, v in issued.items() if k not in _MEASURED}


def calibration(issued: dict[str, Any], terms: Terms) -> Any:
  """The figure of sigma against epsilon, exact and by the classical formula."""
  epsilons = np.geomspace(0.1, 10, 41)
  classical = epsilons[epsilons <= 1]
  parts = ("max_distance", "retrain_error", "rounding")
  distance = sum(issued[part] for part in parts)
  return report.series(
    [
      report.Series(
        "exact",
        epsilons,
        [calibrate.gaussian_sigma(e, terms.delta, distance) for e in epsilons],
      ),
      report.Series(
        "classical formula",
        classical,
        [
          calibrate.classical_sigma(e, terms.delta, distance) for e in classical
        ],
      ),
      report.Series(
        "each release of this run", [issued["epsilon"]], [issued["sigma"]]
      ),
    ],
    title="Noise against epsilon",
    x_label="epsilon of one release",
    y_label="sigma of each parameter",
    scales=("log", "log"),
    caption=f"delta {terms.delta:g}; distance {distance:.6g}, of which "
    f"{terms.max_distance:g} is the bound's, the rest the retrain error and "
    f"rounding. {terms.planned_releases} releases share epsilon "
    f"{terms.epsilon:g}.",
  )
