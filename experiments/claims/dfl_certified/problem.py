"""Requests to clients: what is asked, and both trainings."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from experiments.claims.dfl_certified.federation import CLIENTS, Federation
from experiments.claims.dfl_certified.heads import HEADS
from experiments.decentralized.tasks import records
from junlearn import tree
from junlearn.clients import data, topology
from junlearn.transform import Request

FRACTION = 0.1  # of a client's records, at most


class Case(NamedTuple):
  """One request in one federation.

  Attributes:
    federation: after the request is answered.
    clients: examples of all clients, before, with the labels of its head.
    request: over the same.
    trained: params with what is to be forgotten, `[clients, ...]`.
    retrained: params without.
  """

  federation: Federation
  clients: Any
  request: Request
  trained: Any
  retrained: Any


def clients_of(examples: Any, how: data.How, seed: int) -> Any:
  """The examples, divided among the clients and stacked."""
  return data.stack(data.partition(examples, CLIENTS, how=how, seed=seed))


def records_of(
  clients: Any, client: int, number: int, rng: np.random.Generator
) -> Request:
  """A request for so many records of one client, drawn at random."""
  ids = records(tree.take(clients, client))["id"]
  return data.request_by_id(clients, rng.choice(ids, number, replace=False))


def case(
  before: Federation, after: Federation, digits: Any, request: Request
) -> Case:
  """Trains with everything and, from scratch, without.

  Args:
    before: with what is to be forgotten.
    after: without.
    digits: all clients' examples, labeled with digits.
    request: over the same.
  """
  labeled = after.head.labeled
  clients = labeled(digits)
  request = Request(labeled(request.forget), labeled(request.retain))
  return Case(
    after,
    clients,
    request,
    before.train(clients),
    after.train(request.retain),
  )


def distance(a: Any, b: Any) -> float:
  """|X - Y|_F over all clients."""
  return float(optax.tree.norm(optax.tree.sub(a, b)))


def size_of(examples: Any, client: int) -> int:
  """The number of a client's examples."""
  return int(np.sum(examples["weight"][client]))


# (head, how the records lie, local steps) -> the cases of each seed.
Cases = Mapping[tuple[str, str, int], Sequence[Case]]


def cases(
  train: Any,
  seeds: int,
  *,
  longest: bool = False,
  local_steps: Sequence[int] = (1, 5),
) -> Cases:
  """Requests for a tenth of one client's records, on a ring, l2 = 0.01."""
  mixing = topology.metropolis_hastings(topology.ring(CLIENTS))
  found = {}
  for head in HEADS:
    for tau in local_steps:
      federation = Federation(
        HEADS[head], mixing, l2=0.01, local_steps=tau, longest=longest
      )
      for how in ("iid", "sorted"):
        group = found[head, how, tau] = []
        for seed in range(seeds):
          clients, client = clients_of(train, how, seed), seed % CLIENTS
          number = int(FRACTION * size_of(clients, client))
          request = records_of(
            clients, client, number, np.random.default_rng(seed)
          )
          group.append(case(federation, federation, clients, request))
  return found


def graphs(seed: int) -> dict[str, np.ndarray]:
  """Adjacency by name."""
  return {
    "ring": topology.ring(CLIENTS),
    "torus": topology.torus(2, CLIENTS // 2),
    "Erdos-Renyi": topology.erdos_renyi(CLIENTS, 0.4, seed=seed),
    "exponential": topology.exponential(CLIENTS),
    "complete": topology.complete(CLIENTS),
  }
