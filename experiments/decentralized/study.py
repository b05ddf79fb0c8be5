"""Decentralised clients that train, are asked to delete, and release.

One seed is one network: its graph, who holds which records, and which of them
are to be forgotten.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.release import answering
from experiments.release.terms import Terms
from experiments.run.session import Outcome, Session
from junlearn import descent, nn, tree
from junlearn.audit import predict, signals, utility
from junlearn.certify import Bound, derived
from junlearn.clients import data, influence, retraining, rounds, topology
from junlearn.clients.training import Training
from junlearn.data import Dataset
from junlearn.loss import cross_entropy
from junlearn.methods import decentralized_newton
from junlearn.model import from_linen
from junlearn.parallel import processes
from junlearn.parallel.across import Backend, across
from junlearn.transform import Request, Result, Transform


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
  """

  adjacency: np.ndarray
  clients: dict[str, Any]
  requests: tuple[Request, ...]
  before: Training
  after: Training
  head: derived.Head

  @property
  def request(self) -> Request:
    """The last one, with all that is to be forgotten."""
    return self.requests[-1]

  @property
  def smoothness(self) -> float:
    """At least the largest eigenvalue of any client's Hessian."""
    return self.head.values.smoothness


# The form of those whose releases are certified.
METHODS: Mapping[str, retraining.Form | None] = {
  "newton": "stacked",
  "consensus": "consensus",
  "finetune": None,
}


class Recipe(NamedTuple):
  """How clients train, and what a release promises.

  Attributes:
    model: "linear" or "mlp"; only the linear one can be certified.
    rounds: of training and retraining.
    tolerance: |X - T(X)|_F that they must reach.
    finetune_rounds: of the method `finetune`.
    terms: of the releases.
    precision: "float32" or "float64"; certificates need the latter.
    backend: how the clients are run.
  """

  model: str
  rounds: int
  tolerance: float
  finetune_rounds: int
  terms: Terms
  precision: str
  backend: Backend


_NEWTON_STEPS = 10


class Evidence(NamedTuple):
  """What an audit measured.

  Attributes:
    metrics: numbers by name.
    distances: |x_i - retrained x_i| of each client.
  """

  metrics: dict[str, float]
  distances: np.ndarray


class Study:
  """Trains, corrects, releases and audits; every training is a phase.

  Args:
    dataset: with inputs of norm 1.
    recipe: of all networks.
    session: of the phases; None where only what they left is measured.
  """

  def __init__(self, dataset: Dataset, recipe: Recipe, session: Session | None):
    self.dataset, self.recipe, self.session = dataset, recipe, session
    modules = {
      "linear": nn.MLP(dataset.num_classes, hidden=()),
      "mlp": nn.MLP(dataset.num_classes, hidden=(32,)),
    }
    self.model = from_linen(modules[recipe.model])

  def start(self, network: Network) -> Any:
    """What all clients begin with: the same fresh params, stacked."""
    clients = len(network.adjacency)
    first = jnp.asarray(self.dataset.train["input"][:1])
    params = self.model.init(jax.random.key(0), first)
    return jax.tree.map(
      lambda x: jnp.broadcast_to(x, (clients, *x.shape)).astype(first.dtype),
      params,
    )

  def train(
    self,
    name: str,
    training: Training,
    params: Any,
    request: Request,
    *,
    num_rounds: int,
    reference: Any = None,
  ) -> Outcome:
    """The phase of so many rounds on what the request retains.

    With a `reference`, the outcome's curve has the distance to it.
    """
    rule = rounds.descent(
      training.round(cross_entropy(self.model)),
      num_rounds=num_rounds,
      backend=self.recipe.backend,
    )
    spread = self.recipe.backend == "pmap"
    loop = self.session.talking_loop if spread else self.session.loop
    transform = self.spread(descent.run(rule, loop))

    def evaluate(params):
      return (_distance(params, reference),)

    return self.session.phase(
      name,
      lambda: transform(jax.random.key(0), params, request),
      start=params,
      steps=num_rounds,
      models=tree.size(params) if spread else 1,
      evaluate=None if reference is None else evaluate,
      note=lambda info: {"residual": float(info["steps"]["residual"][-1])},
    )

  def correct(
    self,
    name: str,
    network: Network,
    request: Request,
    params: Any,
    form: retraining.Form,
    *,
    reference: Any,
  ) -> Outcome:
    """The phase of the Newton correction, before any noise.

    It takes one step after the other, to keep the `course`: exchanges between
    neighbours so far, and the distance to the reference. A product with the
    curvature costs an exchange, and so does a gradient.
    """
    step = self.spread(
      self._compiled(
        decentralized_newton.transform(
          self.model,
          network.after,
          form=form,
          # Half of it: the bound has an allowance for rounding too.
          max_distance=self.recipe.terms.max_distance / 2,
          num_steps=1,
          smoothness=network.smoothness,
          backend=self.recipe.backend,
        )
      )
    )

    def corrected():
      result = Result(params, request, None)
      course = [[0, _distance(params, reference)]]
      for _ in range(_NEWTON_STEPS):
        result = step(jax.random.key(0), result.params, request)
        exchanges = int(np.sum(result.info.solves.steps)) + 2
        distance = _distance(result.params, reference)
        course.append([course[-1][0] + exchanges, distance])
        if result.info.converged or not result.info.steps:
          break
      return result._replace(info=course)

    return self.session.phase(
      name, corrected, start=params, steps=0, note=lambda c: {"course": c}
    )

  def retrain(
    self, name: str, network: Network, request: Request, form: retraining.Form
  ) -> Outcome:
    """The phase of what a correction was to save: from the start again.

    A consensus is the minimiser of the mean risk, which Newton's method finds
    from anywhere.
    """
    start = self.start(network)
    if form == "stacked":
      return self.train(
        name, network.after, start, request, num_rounds=self.recipe.rounds
      )
    minimise = self.spread(
      self._compiled(
        decentralized_newton.transform(
          self.model,
          network.after,
          form=form,
          max_distance=self.recipe.terms.max_distance / 2,
          num_steps=10 * _NEWTON_STEPS,
          backend=self.recipe.backend,
        )
      )
    )
    return self.session.phase(
      name,
      lambda: minimise(jax.random.key(0), start, request),
      start=start,
      steps=0,
    )

  def bound(self, network: Network, form: retraining.Form) -> Bound:
    """How far params are from retraining."""
    bound = retraining.bound(
      self.model,
      network.after,
      form=form,
      features=answering.PIXELS,
      tolerance=self.recipe.tolerance,
      head=network.head,
      backend=self.recipe.backend,
    )
    if self.recipe.backend != "pmap":
      return bound
    return bound._replace(
      measure=lambda params, request: bound.measure(*_own((params, request)))
    )

  def influence(self, network: Network) -> np.ndarray:
    """Norm of the predicted influence of the deletion on each client.

    To first order and without retraining, along the training from `start`.
    """
    loss = cross_entropy(self.model)
    body = influence.propagate(
      network.before.round(loss),
      network.after.round(loss),
      num_rounds=self.recipe.rounds,
    )
    run = self._compiled(
      across(body, backend=self.recipe.backend, collective=True)
    )
    everything = self.start(network), network.clients, network.request.retain
    return np.asarray(processes.gather(run(*_own(everything))[1].norm))[:, -1]

  def audit(self, params: Any, network: Network, retrained: Any) -> Evidence:
    """Utility and attack at every client that has not left.

    The attack tells forgotten from test records by the confidence in the true
    class; its AUC is the exact share of pairs that it orders.
    """
    present = np.diag(network.after.mixing) < 1
    distances = _distances(params, retrained)
    kept = tree.take(params, np.flatnonzero(present))
    parts = {
      "forget": records(network.request.forget),
      "retain": records(network.request.retain),
      "test": self.dataset.test,
    }
    logits = {
      name: predict.predict(self.model, kept, part["input"], stacked=True)
      for name, part in parts.items()
    }
    accuracy = {
      name: [utility.accuracy(one, parts[name]["label"]) for one in per_client]
      for name, per_client in logits.items()
    }
    auc = [
      answering.attack_auc(
        signals.confidence(forget, parts["forget"]["label"]),
        signals.confidence(test, parts["test"]["label"]),
      )
      for forget, test in zip(logits["forget"], logits["test"], strict=True)
    ]
    metrics = {
      **{f"{name}_accuracy": float(np.mean(a)) for name, a in accuracy.items()},
      "worst_test_accuracy": float(np.min(accuracy["test"])),
      "attack_auc": float(np.mean(auc)),
      "worst_attack_auc": float(np.max(auc)),
      "distance": float(np.linalg.norm(distances[present])),
    }
    return Evidence(metrics, distances)

  def spread(self, transform: Transform) -> Transform:
    """The transform of stacked params, over all processes of the job."""
    if self.recipe.backend != "pmap":
      return transform

    def everywhere(key, params, request):
      result = transform(key, *_own((params, request)))
      return Result(processes.gather(result.params), request, result.info)

    return everywhere

  def _compiled(self, function):
    return function if self.recipe.backend == "pmap" else jax.jit(function)


def build(
  dataset: Dataset,
  *,
  adjacency: np.ndarray,
  how: data.How,
  select: Callable[[dict[str, Any]], Request],
  num_requests: int,
  leaving: int | None,
  training: Training,
  seed: int,
) -> Network:
  """Divides the records among the clients and selects what to forget.

  Args:
    dataset: with inputs of norm 1.
    adjacency: of the clients.
    how: the records are divided.
    select: stacked records -> request.
    num_requests: into which it is divided.
    leaving: the client that leaves the graph, if one does.
    training: its `mixing` and, if that is 0, its `step_size` are still open:
      the largest step with which training converges on both graphs is taken.
    seed: of the division.

  Raises:
    ValueError: if something does not fit the graph or the records.
  """
  shares = data.partition(dataset.train, len(adjacency), how=how, seed=seed)
  clients = jax.tree.map(jnp.asarray, data.stack(shares))
  requests = _divide(clients, select(clients), num_requests)
  gone = [] if leaving is None else [leaving]
  mixing = topology.metropolis_hastings(adjacency)
  rest = topology.remove(adjacency, gone) if gone else mixing
  topology.check_mixing(mixing)
  topology.check_mixing(rest, removed=gone)
  records_of_all = [clients, *(request.retain for request in requests)]
  head = derived.head_of(
    "softmax",
    input_norm=math.sqrt(2),  # 1 of the record, 1 of the bias
    l2=training.l2,
    num_classes=dataset.num_classes,
    scale=max(_largest_scale(e, training.weighting) for e in records_of_all),
  )
  smoothness = head.values.smoothness
  step_size = training.step_size
  if step_size == 0:
    smallest = min(
      topology.spectrum(mixing).smallest,
      topology.spectrum(rest, removed=gone).smallest,
    )
    several = training.local_steps > 1
    step_size = (1 if several else 1 + smallest) / smoothness
  before = training._replace(mixing=mixing, step_size=step_size)
  return Network(
    adjacency,
    clients,
    requests,
    before,
    before._replace(mixing=rest),
    head,
  )


def _divide(clients, request, number) -> tuple[Request, ...]:
  """Successive requests, each with what the ones before it named."""
  ids = records(request.forget)["id"]
  return tuple(
    jax.tree.map(jnp.asarray, data.by_id(clients, named))
    for named in answering.successive(ids, number)
  )


def _largest_scale(examples, weighting) -> float:
  if weighting == "uniform":
    return 1.0
  counts = np.asarray(examples["weight"]).sum(1)
  return float((counts > 0).sum() * counts.max() / counts.sum())


def records(examples: dict[str, Any]) -> dict[str, np.ndarray]:
  """The records that are present, of one client or of all, on one axis."""
  present = np.asarray(examples["weight"]) > 0
  return {name: np.asarray(leaf)[present] for name, leaf in examples.items()}


def _distances(params: Any, reference: Any) -> np.ndarray:
  """|x_i - reference_i| of each client."""
  squares = [
    np.sum(np.square(np.asarray(a) - np.asarray(b)).reshape(len(a), -1), 1)
    for a, b in zip(
      jax.tree.leaves(params), jax.tree.leaves(reference), strict=True
    )
  ]
  return np.sqrt(np.sum(squares, axis=0))


def _distance(params: Any, reference: Any) -> float:
  """|X - reference|_F."""
  return float(np.linalg.norm(_distances(params, reference)))


def _own(everything: Any) -> Any:
  """The rows of this process's clients.

  From the host, because pmap refuses arrays that jit has put on its devices.
  """
  rows = processes.own(tree.size(everything))
  return tree.take(jax.device_get(everything), rows)
