"""Claim 3: no model is further from retraining than its certificate."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.claims.dfl_certified.instances import PER_CELL, cell, measure
from experiments.claims.dfl_certified.mechanism import DELTA, MAX_DISTANCE
from experiments.claims.dfl_certified.statement import Measured, claim, empty
from experiments.run.tables import table
from experiments.run.workdir import Workdir


def claims(train: Any, workdir: Workdir, number: int) -> Measured:
  """Random requests, each of its own data, client and size.

  Args:
    train: examples.
    workdir: gets every instance, as `dfl_certified/instances.jsonl`.
    number: of requests for records of one client; an eighth as many for a
      class and for a whole client, which leaves the graph, come on top.
  """
  cells = -(-number // PER_CELL)
  extra = -(-cells // 8)
  found = [
    instance
    for kind, times in (
      ("records", cells),
      ("class", extra),
      ("client", extra),
    )
    for index in range(times)
    for instance in measure(cell(kind, index), index, train)
  ]
  workdir.write(
    "dfl_certified/instances.jsonl",
    "".join(json.dumps(instance) + "\n" for instance in found),
  )
  return _judged(found), _summary(found)


def _judged(found: Sequence[dict[str, Any]]):
  def every(name):
    return np.array([each[name] for each in found if name in each])

  actual, certificate = every("actual"), every("certificate")
  ratio, step = certificate / actual, every("one step")
  return [
    claim("3a", "share of random requests that are certified", ">=", 1,
          every("certified").mean()),
    claim("3b", "actual distance / certificate, largest", "<=", 1,
          (actual / certificate).max()),
    claim("3c", "certificate / Delta_max, largest", "<=", 1,
          certificate.max() / MAX_DISTANCE),
    claim("3d", "certificate / actual distance, median", "<=", 100,
          np.median(ratio)),
    claim("3e", "certificate / actual distance, largest", "<=", 100,
          ratio.max()),
    claim("3f", "distance after one step / bound by the gradient, largest",
          "<=", 1, (step / every("by the gradient")).max()),
    claim("3g", "distance after one step / bound by constants, largest",
          "<=", 1, (step / every("by constants")).max()),
    claim("4a", "exact delta(epsilon) of these releases / delta, largest",
          "<=", 1, every("delta").max(initial=0) / DELTA),
  ]  # fmt: skip


def _summary(found: Sequence[dict[str, Any]]) -> list[str]:
  rows = empty()
  for each in found:
    row = rows[each["kind"], each["graph"], each["tau"]]
    for name in ("no-op", "actual", "certificate"):
      row[name].append(each[name])
    ratio = each["certificate"] / each["actual"]
    row["certificate / actual"].append(ratio)
  return table(
    f"Claim 3: {len(found)} random requests, Delta_max {MAX_DISTANCE:g}",
    rows,
    key=("request", "graph", "tau"),
  )
