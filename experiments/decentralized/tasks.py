"""A network of clients: who is connected, holds what, and is asked to forget.

One seed is one network.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.decentralized.recipe import Recipe
from experiments.release import requests
from experiments.run import program
from experiments.run.options import Flag
from junlearn import tree
from junlearn.certify import derived
from junlearn.clients import data, topology
from junlearn.clients.training import Training
from junlearn.data import Dataset, select
from junlearn.transform import Request


def _torus(clients):
  """As near to a square as their number allows."""
  rows = next(r for r in range(math.isqrt(clients), 0, -1) if clients % r == 0)
  return topology.torus(rows, clients // rows)


_GRAPHS = {
  "ring": topology.ring,
  "torus": _torus,
  "exponential": topology.exponential,
  "complete": topology.complete,
}
_RANDOM = "erdos_renyi"


class Layout(NamedTuple):
  """The clients: how they are connected, and what they hold."""

  clients: Annotated[int, Flag("Number of clients.", least=1)] = 8
  topology: Annotated[
    str, Flag("Graph of the clients.", choices=(*_GRAPHS, _RANDOM))
  ] = "ring"
  edges: Annotated[
    tuple[str, ...],
    Flag("Edges of the graph, as 0-1,1-2, in place of a topology."),
  ] = ()
  edge_probability: Annotated[
    float, Flag(f"Probability of an edge in the topology {_RANDOM}.")
  ] = 0.4
  partition: Annotated[
    str,
    Flag(
      "How the records are divided among the clients.",
      choices=("iid", "sorted", "dirichlet"),
    ),
  ] = "iid"


class Asked(NamedTuple):
  """What is to be forgotten; at most one of the fields is given."""

  forget_fraction: Annotated[
    float | None,
    Flag("Forget a random fraction of one client's records (default 0.1)."),
  ] = None
  forget_ids: Annotated[
    tuple[int, ...] | None, Flag("Forget the records of these ids.")
  ] = None
  forget_class: Annotated[int | None, Flag("Forget a whole class.")] = None
  forget_client: Annotated[
    int | None, Flag("Forget a whole client, which leaves the graph.")
  ] = None


class Network(NamedTuple):
  """One seed.

  Attributes:
    adjacency: `[clients, clients]`.
    clients: records, stacked `[clients, n, ...]`.
    requests: over the same records, one after the other; each names all that
      is to be forgotten by then.
    before: how the clients trained.
    after: how they train once the requests are answered.
    head: constants of every client's risk, before and after.
    name: of the task, the only one of its seed.
  """

  adjacency: np.ndarray
  clients: dict[str, Any]
  requests: tuple[Request, ...]
  before: Training
  after: Training
  head: derived.Head
  name: str = ""

  @property
  def request(self) -> Request:
    """The last one, with all that is to be forgotten."""
    return self.requests[-1]

  @property
  def asked(self) -> int | None:
    """The client that holds what is to be forgotten, if it is one."""
    holding = np.asarray(self.request.forget["weight"]).sum(1) > 0
    return int(np.argmax(holding)) if holding.sum() == 1 else None


def network(
  dataset: Dataset,
  layout: Layout,
  asked: Asked,
  recipe: Recipe,
  *,
  num_requests: int,
  seed: int,
) -> Network:
  """Divides the records among the clients and selects what to forget.

  Args:
    dataset: with inputs of norm 1.
    layout: of the clients.
    asked: what is to be forgotten.
    recipe: of the training; where its step size is 0, the largest is taken with
      which training converges before and after the request.
    num_requests: into which the request is divided.
    seed: of the graph, the division and the request.

  Raises:
    ValueError: naming the flag that does not fit the graph or the records.
  """
  adjacency = _adjacency(layout, seed)
  shards = data.partition(
    dataset.train, layout.clients, how=layout.partition, seed=seed
  )
  clients = jax.tree.map(jnp.asarray, data.stack(shards))
  divided = _divide(clients, _request(clients, asked, seed), num_requests)
  gone = [] if asked.forget_client is None else [asked.forget_client]
  mixing = topology.metropolis_hastings(adjacency)
  rest = topology.remove(adjacency, gone) if gone else mixing
  topology.check_mixing(mixing)
  topology.check_mixing(rest, removed=gone)
  records_of_all = [clients, *(request.retain for request in divided)]
  scales = [_largest_scale(e, recipe.weighting) for e in records_of_all]
  head = derived.head_of(
    "softmax",
    input_norm=math.sqrt(2),  # 1 of the record, 1 of the bias
    l2=recipe.l2,
    num_classes=dataset.num_classes,
    scale=max(scales),
  )
  smallest = min(
    topology.spectrum(mixing).smallest,
    topology.spectrum(rest, removed=gone).smallest,
  )
  longest = 1 if recipe.local_steps > 1 else 1 + smallest
  step_size = recipe.step_size or longest / head.values.smoothness
  before = recipe.training(mixing, step_size)
  after = recipe.training(rest, step_size)
  return Network(adjacency, clients, divided, before, after, head)


def records(examples: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The records that are present, of one client or of all, on one axis."""
  present = np.asarray(examples["weight"]) > 0
  return {name: np.asarray(leaf)[present] for name, leaf in examples.items()}


def _adjacency(layout: Layout, seed: int) -> np.ndarray:
  clients = layout.clients
  if layout.edges:
    with program.naming("edges"):
      return topology.from_edges(clients, [*map(_edge, layout.edges)])
  with program.naming("topology"):
    if layout.topology == _RANDOM:
      return topology.erdos_renyi(clients, layout.edge_probability, seed=seed)
    return _GRAPHS[layout.topology](clients)


def _edge(text: str) -> list[int]:
  ends = text.split("-")
  if len(ends) != 2 or not all(map(str.isdecimal, ends)):
    raise ValueError(
      f"{text!r} is no edge; each must be two whole numbers as 0-1."
    )
  return [*map(int, ends)]


def _request(clients: dict[str, Any], asked: Asked, seed: int) -> Request:
  """What is to be forgotten, wherever it is."""
  for name, select_by in (
    ("forget_client", data.request_by_client),
    ("forget_class", data.request_by_class),
    ("forget_ids", data.request_by_id),
  ):
    value = getattr(asked, name)
    if value is not None:
      with program.naming(name):
        return select_by(clients, value)
  fraction = 0.1 if asked.forget_fraction is None else asked.forget_fraction
  held = records(tree.take(clients, seed % tree.size(clients)))
  with program.naming("forget_fraction"):
    chosen = select.by_fraction(held, fraction, seed=seed).forget
  return data.request_by_id(clients, chosen["id"])


def _divide(
  clients: dict[str, Any], request: Request, number: int
) -> tuple[Request, ...]:
  """Successive requests, each with what the ones before it named."""
  ids: Sequence[int] = records(request.forget)["id"]
  with program.naming("requests"):
    named = requests.successive(ids, number)
  return tuple(
    jax.tree.map(jnp.asarray, data.request_by_id(clients, each))
    for each in named
  )


def _largest_scale(examples: Mapping[str, Any], weighting: str) -> float:
  if weighting == "uniform":
    return 1.0
  counts = np.asarray(examples["weight"]).sum(1)
  return float((counts > 0).sum() * counts.max() / counts.sum())
