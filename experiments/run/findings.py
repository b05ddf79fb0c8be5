"""What a run found on one request, as its figures want it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.run.workdir import Workdir
from junlearn.report.summary import REFERENCES as REFERENCES


class Findings(NamedTuple):
  """Rows and evidence of a request, over all seeds.

  Attributes:
    name: of the request.
    rows: of `results.jsonl`.
    evidence: the arrays of each seed, by method; the references first.
  """

  name: str
  rows: Sequence[Mapping[str, Any]]
  evidence: Mapping[str, Sequence[Mapping[str, np.ndarray]]]

  @property
  def methods(self) -> list[str]:
    """All rows' names, the references first."""
    return list(self.evidence)

  @property
  def unlearned(self) -> list[str]:
    """The methods without the references."""
    return [name for name in self.evidence if name not in REFERENCES]

  def first(self, method: str) -> Mapping[str, np.ndarray]:
    """The arrays of the first seed."""
    return self.evidence[method][0]

  def pooled(self, method: str, name: str) -> np.ndarray:
    """One array of all seeds, on one axis."""
    return np.concatenate([arrays[name] for arrays in self.evidence[method]])

  def metrics(self, method: str) -> Mapping[str, float]:
    """What was measured on the first seed."""
    for row in self.rows:
      if (row["method"], row["seed"]) == (method, 0):
        return row["metrics"]
    raise KeyError(method)


def place(seed: int, task: str, method: str) -> str:
  """What a model is called among those of a run: the place of what it left."""
  return "/".join(filter(None, [f"seed{seed}", task, method]))


def evidence(seed: int, task: str, method: str) -> str:
  """The file with the arrays of a model's audit."""
  return f"evidence/{place(seed, task, method)}.npz"


def collect(workdir: Workdir, name: str, seeds: int) -> Findings:
  """Reads what the run left of a request."""
  rows = [row for row in workdir.rows if row.get("request", "") == name]
  methods = [*REFERENCES, *(row["method"] for row in rows)]
  arrays = {
    method: [
      workdir.read_arrays(evidence(seed, name, method)) or {}
      for seed in range(seeds)
    ]
    for method in dict.fromkeys(methods)
  }
  return Findings(name, rows, arrays)
