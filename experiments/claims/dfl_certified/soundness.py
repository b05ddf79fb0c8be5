"""Claim 3: no model is further from retraining than its certificate."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.claims.dfl_certified.federation import (
  CLIENTS,
  HEADS,
  Federation,
  corrector,
)
from experiments.claims.dfl_certified.mechanism import (
  DELTA,
  EPSILON,
  MAX_DISTANCE,
  correct,
  release,
)
from experiments.claims.dfl_certified.problem import (
  SHARE,
  Case,
  Measured,
  case,
  claim,
  clients_of,
  distance,
  graphs,
  records_of,
  size_of,
)
from experiments.run.table import table
from experiments.run.workdir import Workdir
from junlearn.certify import bounds, calibrate
from junlearn.certify.release import NotReachedError
from junlearn.clients import data, topology

_PER_CELL = 5  # instances that share compiled programs


class _Cell(NamedTuple):
  """Instances that differ in their data and requests alone."""

  kind: str
  graph: str
  head: str
  local_steps: int
  l2: float
  client: int
  before: Federation
  after: Federation


def claims(train: Any, workdir: Workdir, instances: int) -> Measured:
  """Random requests, each of its own data, client and size.

  Args:
    train: examples.
    workdir: gets every instance, as `dfl_certified/instances.jsonl`.
    instances: requests for records of one client; an eighth as many for a
      class and for a whole client, which leaves the graph, come on top.
  """
  cells = -(-instances // _PER_CELL)
  extra = -(-cells // 8)
  found = [
    instance
    for kind, number in (
      ("records", cells),
      ("class", extra),
      ("client", extra),
    )
    for index in range(number)
    for instance in _instances(_cell(kind, index), index, train)
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
  rows: dict[Any, dict[str, list[float]]] = {}
  for each in found:
    row = rows.setdefault((each["kind"], each["graph"], each["tau"]), {})
    for name in ("no-op", "actual", "certificate"):
      row.setdefault(name, []).append(each[name])
    ratio = each["certificate"] / each["actual"]
    row.setdefault("certificate / actual", []).append(ratio)
  return table(
    f"Claim 3: {len(found)} random requests, Delta_max {MAX_DISTANCE:g}",
    rows,
    key=("request", "graph", "tau"),
  )


def _cell(kind: str, index: int) -> _Cell:
  rng = np.random.default_rng([index, len(kind)])
  drawn = graphs(int(rng.integers(2**31)))
  graph = list(drawn)[index % len(drawn)]
  # Four combinations and five graphs: all twenty pairs in turn.
  head = list(HEADS)[index // 2 % 2]
  local_steps = (1, 5)[index % 2]
  l2 = float(np.exp(rng.uniform(*np.log([0.01, 0.05]))))
  client = int(rng.integers(CLIENTS))

  def federation(mixing):
    return Federation(HEADS[head], mixing, l2=l2, local_steps=local_steps)

  before = federation(topology.metropolis_hastings(drawn[graph]))
  after = before
  if kind == "client":
    client, mixing = _without(drawn[graph], client)
    after = federation(mixing)
  return _Cell(kind, graph, head, local_steps, l2, client, before, after)


def _without(adjacency: np.ndarray, client: int) -> tuple[int, np.ndarray]:
  """The first client from this one on that can leave, and W without it."""
  for candidate in np.roll(np.arange(CLIENTS), -client):
    try:
      return int(candidate), topology.remove(adjacency, candidate)
    except ValueError:  # the others would not be connected
      continue
  raise ValueError("no client can leave the graph.")


def _instances(cell: _Cell, index: int, train: Any) -> Iterator[dict[str, Any]]:
  federation = cell.after
  one_step = corrector(federation, num_steps=1, tolerance=1e-8)
  for number in range(_PER_CELL):
    rng = np.random.default_rng([index, len(cell.kind), number])
    how = str(rng.choice(["iid", "sorted"]))
    clients = clients_of(train, how, int(rng.integers(2**31)))
    size = size_of(clients, cell.client)
    if cell.kind == "records":
      m = int(rng.integers(1, int(SHARE * size) + 1))
      request = records_of(clients, cell.client, m, rng)
    elif cell.kind == "class":
      request = data.by_class(clients, int(rng.integers(10)))
    else:
      request = data.by_client(clients, cell.client)
    each = case(cell.before, federation, clients, request)
    corrected = correct(federation, each.trained, each.request)
    actual = distance(corrected, each.retrained)
    instance = {
      "kind": cell.kind,
      "graph": cell.graph,
      "head": cell.head,
      "tau": cell.local_steps,
      "l2": cell.l2,
      "records": how,
      "m": int(request.forget["weight"].sum()),
      "no-op": distance(each.trained, each.retrained),
      "actual": actual,
      "certificate": float(federation.bound.distance(corrected, each.request)),
    }
    instance |= _released(each, corrected, actual, seed=index)
    if cell.kind == "records" and cell.local_steps == 1:
      instance |= _one_step(each, one_step, instance["m"], size)
    yield instance


def _released(
  each: Case, corrected: Any, actual: float, *, seed: int
) -> dict[str, Any]:
  """What the noise is, and what it hides, unless the release is refused."""
  try:
    released = release(each.federation, corrected, each.request, seed=seed)
  except NotReachedError:
    return {"certified": False}
  sigma = released.info["release"].sigma
  return {
    "certified": True,
    "sigma": sigma,
    "delta": calibrate.gaussian_delta(EPSILON, actual, sigma),
  }


def _one_step(each: Case, step: Any, m: int, size: int) -> dict[str, float]:
  """What one step leaves, and what the theorems allow it to."""
  moved = step(jax.random.key(0), each.trained, each.request)
  federation, info = each.federation, moved.info
  constants, l2 = federation.constants.values, federation.training.l2
  solve_residual = float(info.solves.residual[0])
  return {
    "one step": distance(moved.params, each.retrained),
    "by the gradient": bounds.inexact_newton_step(
      float(info.residuals[0]),
      solve_residual,
      l2=l2,
      hessian_lipschitz=constants.hessian_lipschitz,
    ),
    "by constants": bounds.stacked_a_priori(
      m,
      size,
      l2=l2,
      gradient=constants.gradient,
      hessian_lipschitz=constants.hessian_lipschitz,
      training_residual=federation.bound.comparator * l2,
      solve_error=solve_residual,
    ),
  }
