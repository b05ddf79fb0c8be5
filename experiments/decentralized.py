"""Certified unlearning among clients that train without a server.

    python -m experiments.decentralized --workdir=DIR

With no flags: digits at 8 clients on a ring, a tenth of one client's records
to be forgotten by all, 3 seeds; DIR holds the report, the releases, and for
each certified one a certificate and a ledger that
`python -m experiments.verify_certificate DIR` checks.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import harness, network_report, network_study
from experiments.meter import Meter
from experiments.network_study import METHODS, Network, Recipe, Study
from experiments.register import Register
from experiments.session import Outcome, Session
from experiments.workdir import Workdir
from junlearn import tree
from junlearn.certify import calibrate, convexity
from junlearn.certify.accountant import Account
from junlearn.clients import data, topology
from junlearn.clients.training import Training
from junlearn.data import Dataset, load, select
from junlearn.transform import Request

_TOPOLOGIES = ("ring", "torus", "erdos_renyi", "exponential", "complete")

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/decentralized", "Folder of the run; continued if begun."
)
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
_METHOD = flags.DEFINE_list(
  "method", list(METHODS), f"Methods to compare, of: {', '.join(METHODS)}."
)
_MODEL = flags.DEFINE_enum(
  "model", "linear", ["linear", "mlp"], "Only the linear one can be certified."
)
_SEEDS = flags.DEFINE_integer(
  "seeds",
  3,
  "Seeds; each divides the records and draws what to forget.",
  lower_bound=1,
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
_EPSILON = flags.DEFINE_float(
  "epsilon", 1.0, "Budget of all releases of a network together."
)
_DELTA = flags.DEFINE_float("delta", 1e-5, "The same.")
_PLANNED = flags.DEFINE_integer(
  "planned_requests",
  None,
  "Releases to divide the budget among (default: as many as requests).",
  lower_bound=1,
)
_MAX_DISTANCE = flags.DEFINE_float(
  "max_distance", 1e-3, "To retraining, at most, before a release."
)
_PRECISION = flags.DEFINE_enum(
  "precision", "float64", ["float32", "float64"], "Certificates need float64."
)
_BACKEND = flags.DEFINE_enum(
  "backend", "vmap", ["vmap", "pmap"], "Clients on one device, or over all."
)

flags.mark_flags_as_mutual_exclusive([_FRACTION, _IDS, _CLASS, _CLIENT])
flags.adopt_module_key_flags(harness)


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  harness.no_arguments(arguments)
  harness.choose("method", _METHOD.value, METHODS)
  certified = [name for name in _METHOD.value if METHODS[name]]
  if certified and _PRECISION.value != "float64":
    raise ValueError(
      f"--precision={_PRECISION.value}: {', '.join(certified)} are certified, "
      "which needs float64."
    )
  jax.config.update("jax_enable_x64", _PRECISION.value == "float64")
  recipe = Recipe(
    model=_MODEL.value,
    rounds=_ROUNDS.value,
    tolerance=_TOLERANCE.value,
    finetune_rounds=_FINETUNE_ROUNDS.value,
    epsilon=_EPSILON.value,
    delta=_DELTA.value,
    planned=_PLANNED.value or _REQUESTS.value,
    max_distance=_MAX_DISTANCE.value,
    backend=_BACKEND.value,
  )
  with harness.naming(_DATASET.name):
    dataset = load(
      _DATASET.value,
      data_dir=flags.FLAGS.data_dir,
      manual_dir=flags.FLAGS.manual_dir,
      num_train=_NUM_TRAIN.value,
      num_test=_NUM_TEST.value,
    )
  dataset = network_study.unit_norm(dataset)
  networks = [_network(dataset, seed) for seed in range(_SEEDS.value)]
  with Workdir(_WORKDIR.value, harness.own_flags()) as workdir:
    with Session(
      workdir,
      _total(recipe),
      checkpoint_seconds=flags.FLAGS.checkpoint_seconds,
    ) as session:
      study = Study(dataset, recipe, session)
      if certified:
        with harness.naming(_MODEL.name):
          params = jax.tree.map(lambda x: x[0], study.start(networks[0]))
          convexity.check_linear(
            study.model, params, dataset.train["input"][:2]
          )
      for seed, network in enumerate(networks):
        _run_seed(study, workdir, seed, network)
    print(network_report.write(workdir, study, networks))


def _run_seed(
  study: Study, workdir: Workdir, seed: int, network: Network
) -> None:
  """Both references and every method, for one seed's network."""
  recipe, request = study.recipe, network.request
  folder = f"seed{seed}"
  start = study.start(network)
  original = study.train(
    f"{folder}/original",
    network.before,
    start,
    Request(forget=None, retain=network.clients),
    num_rounds=recipe.rounds,
  )
  retrained = study.train(
    f"{folder}/retrain",
    network.after,
    start,
    request,
    num_rounds=recipe.rounds,
  )
  for name, outcome in (("original", original), ("retrain", retrained)):
    residual = outcome.notes["residual"]
    if residual > recipe.tolerance and any(map(METHODS.get, _METHOD.value)):
      raise ArithmeticError(
        f"{folder}/{name}: after {recipe.rounds} rounds a round still moves "
        f"the clients by {residual:.2g}, above --tolerance="
        f"{recipe.tolerance:g}; take more --rounds."
      )
  target = retrained.params
  add = _Rows(workdir, study, seed, network, retrained)
  add("retrain", retrained, exchanges=recipe.rounds)
  add("original", original, exchanges=0)
  if workdir.read_arrays(f"evidence/{folder}/influence.npz") is None:
    workdir.write_arrays(
      f"evidence/{folder}/influence.npz", {"norm": study.influence(network)}
    )
  for name in _METHOD.value:
    method = METHODS[name]
    if method is None:
      outcome = study.train(
        f"{folder}/{name}",
        network.after,
        original.params,
        request,
        num_rounds=recipe.finetune_rounds,
        reference=target,
      )
      add(name, outcome, exchanges=recipe.finetune_rounds)
      continue
    register = Register(workdir, f"{folder}/{name}", study, network, seed)
    answer = _answer(
      study, network, register, f"{folder}/{name}", original, retrained
    )
    add(name, *answer)


def _answer(
  study: Study,
  network: Network,
  register: Register,
  name: str,
  original: Outcome,
  retrained: Outcome,
) -> tuple[Outcome, list[Outcome]]:
  """Answers the requests one after the other, each with a release of its own.

  Returns:
    The last release, and the corrections behind all of them.

  Raises:
    ArithmeticError: if the budget is spent or a bound is not met; the releases
      before stay.
  """
  method, recipe = METHODS[name.split("/")[1]], study.recipe
  distance = recipe.max_distance + study.comparator(network)
  budget = Account(recipe.epsilon, recipe.delta)
  sigma = budget.sigma(distance, releases=recipe.planned)
  epsilon = calibrate.gaussian_epsilon(recipe.delta, distance, sigma)
  corrections, before = [], original.params
  for index, request in enumerate(network.requests):
    if len(register.account().releases) <= index:
      register.account().add(distance, sigma)  # before any noise is drawn
    corrected = study.correct(
      f"{name}/{index}-corrected",
      network,
      request,
      before,
      method.form,
      reference=retrained.params,
    )
    released = study.release(
      f"{name}/{index}-released",
      network,
      request,
      corrected.params,
      method,
      epsilon=epsilon,
    )
    register.enter(
      index,
      method,
      epsilon=epsilon,
      before=before,
      corrected=corrected,
      released=released,
    )
    corrections.append(corrected)
    before = corrected.params
  return released, corrections


class _Rows:
  """Audits outcomes of one seed; adds the row that is not there yet."""

  def __init__(self, workdir, study, seed, network, retrained):
    self._workdir, self._study, self._seed = workdir, study, seed
    self._network, self._retrained = network, retrained

  def __call__(
    self,
    method: str,
    outcome: Outcome,
    corrections: Sequence[Outcome] = (),
    *,
    exchanges: int = 0,
  ) -> None:
    """Adds the row of a method, and of what it was before any noise."""
    if self._workdir.row(method, self._seed) is not None:
      return
    meter = Meter()
    target = self._retrained.params
    evidence = self._study.audit(outcome.params, self._network, target)
    metrics = {"exchanges": exchanges, **evidence.metrics, **outcome.notes}
    arrays = {
      "distances": evidence.distances,
      "curve": np.asarray(outcome.curve),
    }
    if corrections:
      before = self._study.audit(corrections[-1].params, self._network, target)
      course = _joined([c.notes["course"] for c in corrections])
      metrics["distance_before_noise"] = before.metrics["distance"]
      metrics["exchanges"] = course[-1][0]
      arrays |= {"corrected": before.distances, "curve": np.asarray(course)}
    parts = [outcome, *corrections]
    self._workdir.write_arrays(
      f"evidence/seed{self._seed}/{method}.npz", arrays
    )
    seconds, compiled = meter.read().tolist()
    self._workdir.add_row(
      {
        "method": method,
        "seed": self._seed,
        "metrics": metrics,
        "seconds": {
          "unlearn": sum(part.seconds for part in parts),
          "retrain": self._retrained.seconds,
          "audit": seconds,
          "compile": compiled + sum(part.compile for part in parts),
        },
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "params_sha256": outcome.params_sha256,
      }
    )


def _joined(courses: Sequence[list[list[float]]]) -> list[list[float]]:
  """One course after the other; each begins at 0 exchanges."""
  joined = courses[0]
  for course in courses[1:]:
    start = joined[-1][0]
    joined = joined + [[start + x, y] for x, y in course[1:]]
  return joined


def _network(dataset: Dataset, seed: int) -> Network:
  """The network that the flags describe, drawn with the seed."""
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
    with harness.naming(_EDGES.name):
      return topology.from_edges(clients, _whole(_EDGES, 2))
  with harness.naming(_TOPOLOGY.name):
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
    with harness.naming(_CLIENT.name):
      return data.by_client(clients, _CLIENT.value)
  if _CLASS.value is not None:
    with harness.naming(_CLASS.name):
      return data.by_class(clients, _CLASS.value)
  if _IDS.value is not None:
    with harness.naming(_IDS.name):
      return data.by_id(clients, _whole(_IDS, 1))
  fraction = 0.1 if _FRACTION.value is None else _FRACTION.value
  client = seed % _CLIENTS.value
  held = network_study.records(tree.take(clients, client))
  with harness.naming(_FRACTION.name):
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


def _total(recipe: Recipe) -> int:
  """Rounds that the whole run takes."""
  tuned = sum(METHODS[name] is None for name in _METHOD.value)
  rounds = 2 * recipe.rounds + tuned * recipe.finetune_rounds
  # Spread clients count one by one, as models do.
  models = _CLIENTS.value if recipe.backend == "pmap" else 1
  return _SEEDS.value * rounds * models


if __name__ == "__main__":
  harness.start(main)
