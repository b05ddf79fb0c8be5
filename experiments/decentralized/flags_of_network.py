"""Flags that describe a network of clients, and what they stand for."""

import math
from typing import Any

import numpy as np
from absl import flags

from experiments.decentralized import study as network_study
from experiments.decentralized.study import Network, Recipe
from experiments.release import answering, terms
from experiments.run import program
from junlearn import tree
from junlearn.clients import data, topology
from junlearn.clients.training import Training
from junlearn.data import Dataset, load, select
from junlearn.transform import Request

_TOPOLOGIES = ("ring", "torus", "erdos_renyi", "exponential", "complete")

_DATASET = flags.DEFINE_string(
  "dataset",
  "digits",
  "digits, mnist, fashion_mnist, cifar10, or a TFDS name prepared in data_dir.",
)
_NUM_TRAIN = flags.DEFINE_integer(
  "num_train", None, "Use the first so many training examples.", lower_bound=2
)
_NUM_TEST = flags.DEFINE_integer(
  "num_test", None, "Use the first so many test examples.", lower_bound=2
)
_MODEL = flags.DEFINE_enum(
  "model", "linear", ["linear", "mlp"], "Only the linear one can be certified."
)
_CLIENTS = flags.DEFINE_integer("clients", 8, "Clients.", lower_bound=1)
_TOPOLOGY = flags.DEFINE_enum(
  "topology", "ring", _TOPOLOGIES, "Graph of the clients."
)
_EDGES = flags.DEFINE_list(
  "edges", [], "Edges of the graph, as 0-1,1-2, in place of a topology."
)
_EDGE_PROBABILITY = flags.DEFINE_float(
  "edge_probability", 0.4, "Of the topology erdos_renyi."
)
_PARTITION = flags.DEFINE_enum(
  "partition", "iid", ["iid", "sorted", "dirichlet"], "Who holds what."
)
_WEIGHTING = flags.DEFINE_enum(
  "weighting", "uniform", ["uniform", "sample"], "What counts alike."
)
_L2 = flags.DEFINE_float("l2", 0.01, "Penalty on all parameters.")
_STEP_SIZE = flags.DEFINE_float(
  "step_size", 0.0, "Of training; 0 takes the largest that converges."
)
_LOCAL_STEPS = flags.DEFINE_integer(
  "local_steps", 1, "Steps between two exchanges.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 4000, "Of training and retraining.", lower_bound=1
)
_FINETUNE_ROUNDS = flags.DEFINE_integer(
  "finetune_rounds", 40, "Of the method finetune.", lower_bound=1
)
_TOLERANCE = flags.DEFINE_float(
  "tolerance", 1e-8, "How far a round may still move a trained network."
)
_FRACTION = flags.DEFINE_float(
  "forget_fraction", None, "Forget this share of one client's records (0.1)."
)
_IDS = flags.DEFINE_list("forget_ids", None, "Forget the records of these ids.")
_CLASS = flags.DEFINE_integer("forget_class", None, "Forget a whole class.")
_CLIENT = flags.DEFINE_integer(
  "forget_client", None, "Forget a whole client, which leaves the graph."
)
_REQUESTS = flags.DEFINE_integer(
  "requests",
  1,
  "Successive requests that what is to be forgotten is divided into; each is "
  "answered by a release of its own.",
  lower_bound=1,
)
_PRECISION = flags.DEFINE_enum(
  "precision", "float64", ["float32", "float64"], "Certificates need float64."
)
_BACKEND = flags.DEFINE_enum(
  "backend", "vmap", ["vmap", "pmap"], "Clients on one device, or over all."
)

flags.adopt_module_key_flags(terms)
flags.mark_flags_as_mutual_exclusive([_FRACTION, _IDS, _CLASS, _CLIENT])


def recipe(releases: int) -> Recipe:
  """How clients train, and what so many releases promise."""
  return Recipe(
    model=_MODEL.value,
    rounds=_ROUNDS.value,
    tolerance=_TOLERANCE.value,
    finetune_rounds=_FINETUNE_ROUNDS.value,
    terms=terms.from_flags(releases),
    precision=_PRECISION.value,
    backend=_BACKEND.value,
  )


def dataset() -> Dataset:
  """The records, with inputs of norm 1."""
  with program.naming(_DATASET.name):
    found = load(
      _DATASET.value,
      data_dir=flags.FLAGS.data_dir,
      manual_dir=flags.FLAGS.manual_dir,
      num_train=_NUM_TRAIN.value,
      num_test=_NUM_TEST.value,
    )
  return answering.unit_norm(found)


def requests() -> int:
  """Successive requests to each network."""
  return _REQUESTS.value


def clients() -> int:
  """How many there are."""
  return _CLIENTS.value


def network(dataset: Dataset, seed: int) -> Network:
  """The network of a seed.

  Raises:
    ValueError: naming the flag.
  """
  training = Training(
    mixing=None,
    step_size=_STEP_SIZE.value,
    l2=_L2.value,
    local_steps=_LOCAL_STEPS.value,
    weighting=_WEIGHTING.value,
  )
  return network_study.build(
    dataset,
    adjacency=_adjacency(seed),
    how=_PARTITION.value,
    select=lambda clients: _request(clients, seed),
    num_requests=_REQUESTS.value,
    leaving=_CLIENT.value,
    training=training,
    seed=seed,
  )


def _adjacency(seed: int) -> np.ndarray:
  clients = _CLIENTS.value
  if _EDGES.value:
    with program.naming(_EDGES.name):
      return topology.from_edges(clients, _whole(_EDGES, 2))
  with program.naming(_TOPOLOGY.name):
    if _TOPOLOGY.value == "erdos_renyi":
      return topology.erdos_renyi(clients, _EDGE_PROBABILITY.value, seed=seed)
    if _TOPOLOGY.value == "torus":
      rows = next(
        r for r in range(math.isqrt(clients), 0, -1) if clients % r == 0
      )
      return topology.torus(rows, clients // rows)
    return getattr(topology, _TOPOLOGY.value)(clients)


def _request(clients: dict[str, Any], seed: int) -> Request:
  if _CLIENT.value is not None:
    with program.naming(_CLIENT.name):
      return data.by_client(clients, _CLIENT.value)
  if _CLASS.value is not None:
    with program.naming(_CLASS.name):
      return data.by_class(clients, _CLASS.value)
  if _IDS.value is not None:
    with program.naming(_IDS.name):
      return data.by_id(clients, _whole(_IDS, 1))
  fraction = 0.1 if _FRACTION.value is None else _FRACTION.value
  client = seed % _CLIENTS.value
  held = network_study.records(tree.take(clients, client))
  with program.naming(_FRACTION.name):
    chosen = select.by_fraction(held, fraction, seed=seed).forget
  return data.by_id(clients, chosen["id"])


def _whole(flag: flags.FlagHolder, width: int) -> list[Any]:
  """The numbers of a list flag, joined by hyphens where the width is above 1.

  Raises:
    ValueError: naming the flag.
  """
  found = [text.split("-") for text in flag.value]
  if any(len(p) != width or not all(map(str.isdecimal, p)) for p in found):
    form = "-".join(["0"] * width)
    raise ValueError(
      f"--{flag.name}={','.join(flag.value)}; each must be whole numbers as "
      f"{form}."
    )
  numbers = [[int(part) for part in parts] for parts in found]
  return numbers if width > 1 else [number for (number,) in numbers]
