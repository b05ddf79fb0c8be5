"""Random requests, each of its own data, client and size."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.claims.dfl_certified.federation import (
  CLIENTS,
  Federation,
  corrector,
)
from experiments.claims.dfl_certified.heads import HEADS
from experiments.claims.dfl_certified.mechanism import EPSILON, correct, release
from experiments.claims.dfl_certified.problem import (
  FRACTION,
  Case,
  case,
  clients_of,
  distance,
  graphs,
  records_of,
  size_of,
)
from junlearn.certify import bounds, calibrate
from junlearn.certify.release import NotReachedError
from junlearn.clients import data, topology

PER_CELL = 5  # instances with the same compiled programs


class Cell(NamedTuple):
  """Instances that differ in their data and requests alone."""

  kind: str
  graph: str
  head: str
  local_steps: int
  l2: float
  client: int
  before: Federation
  after: Federation


def cell(kind: str, index: int) -> Cell:
  """Of a kind of request; the index draws all else."""
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
  return Cell(kind, graph, head, local_steps, l2, client, before, after)


def _without(adjacency: np.ndarray, client: int) -> tuple[int, np.ndarray]:
  """The first client from this one on that can leave, and W without it."""
  for candidate in np.roll(np.arange(CLIENTS), -client):
    try:
      return int(candidate), topology.remove(adjacency, candidate)
    except ValueError:  # the others would not be connected
      continue
  raise ValueError("no client can leave the graph.")


def measure(cell: Cell, index: int, train: Any) -> Iterator[dict[str, Any]]:
  """What came of each request of a cell."""
  federation = cell.after
  one_step = corrector(federation, num_steps=1, tolerance=1e-8)
  for number in range(PER_CELL):
    rng = np.random.default_rng([index, len(cell.kind), number])
    how = str(rng.choice(["iid", "sorted"]))
    clients = clients_of(train, how, int(rng.integers(2**31)))
    size = size_of(clients, cell.client)
    if cell.kind == "records":
      m = int(rng.integers(1, int(FRACTION * size) + 1))
      request = records_of(clients, cell.client, m, rng)
    elif cell.kind == "class":
      request = data.request_by_class(clients, int(rng.integers(10)))
    else:
      request = data.request_by_client(clients, cell.client)
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
      training_residual=federation.bound.retrain_error * l2,
      solve_error=solve_residual,
    ),
  }
