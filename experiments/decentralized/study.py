"""Clients that train without a server, are asked to delete, and release."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.decentralized import figures, methods, metrics, tasks
from experiments.decentralized.backend import (
  compiled,
  everywhere,
  local_shard,
)
from experiments.decentralized.methods import METHODS
from experiments.decentralized.recipe import MODELS, Recipe
from experiments.decentralized.tasks import Asked, Layout, Network, records
from experiments.release import inputs, study
from experiments.release.terms import Terms, target
from experiments.run.findings import Findings
from experiments.run.session import Outcome
from experiments.run.study import Case, Evidence
from junlearn import descent, nn, tree
from junlearn.audit import outputs
from junlearn.certify import Bound, convexity
from junlearn.clients import influence, retraining, rounds, topology
from junlearn.clients.training import Training
from junlearn.data import Dataset
from junlearn.loss import cross_entropy
from junlearn.model import from_linen
from junlearn.parallel import processes
from junlearn.parallel.across import across
from junlearn.transform import Request

_NEWTON_STEPS = 10


class Study(study.Study[Network]):
  """One data set, one recipe; every training is a phase of the session.

  Args:
    dataset: with inputs of norm 1.
    recipe: of all networks.
    layout: of the clients.
    asked: what is to be forgotten.
    terms: of the releases.
    compared: methods.

  Raises:
    ValueError: if releases of a model that is not linear would be certified.
  """

  EXPERIMENT = "decentralized"
  METRICS = metrics.METRICS
  NOT_PROVEN = metrics.NOT_PROVEN

  def __init__(
    self,
    dataset: Dataset,
    recipe: Recipe,
    *,
    layout: Layout,
    asked: Asked,
    terms: Terms,
    compared: Sequence[str],
  ):
    super().__init__(terms, [name for name in compared if METHODS[name]])
    self.dataset, self.recipe = dataset, recipe
    self._layout, self._asked = layout, asked
    self._spread = recipe.backend == "pmap"
    self.model = from_linen(
      nn.MLP(dataset.num_classes, hidden=MODELS[recipe.model])
    )
    if self.releasing:
      examples = dataset.train["input"][:2]
      convexity.check_linear(self.model, self._fresh(), examples)

  @property
  def title(self) -> str:
    """Of the report."""
    return f"Forgetting records of {self.dataset.name} in a network"

  @functools.cache  # noqa: B019  one study lives as long as the run
  def tasks(self, seed: int) -> list[Network]:
    """The network of a seed."""
    return [
      tasks.network(
        self.dataset,
        self._layout,
        self._asked,
        self.recipe,
        num_requests=self.terms.requests,
        seed=seed,
      )
    ]

  def steps(self, name: str, task: Network) -> int:
    """Rounds of training; spread clients count one by one, as models do."""
    counted = {
      "original": self.recipe.rounds,
      "retrain": self.recipe.rounds,
      "finetune": self.recipe.finetune_rounds,
    }
    models = len(task.adjacency) if self._spread else 1
    return counted.get(name, 0) * models

  def start(self, task: Network) -> Any:
    """What all clients begin with: the same fresh params, stacked."""
    clients = len(task.adjacency)
    return jax.tree.map(
      lambda x: jnp.broadcast_to(x, (clients, *x.shape)), self._fresh()
    )

  def _fresh(self) -> Any:
    first = jnp.asarray(self.dataset.train["input"][:1])
    params = self.model.init(jax.random.key(0), first)
    return jax.tree.map(lambda x: x.astype(first.dtype), params)

  def fit(self, task: Network | None, seed: int) -> Outcome:
    """The network trained from the start.

    Raises:
      ArithmeticError: if it has not come to rest, and is to be certified.
    """
    network = task or self.tasks(seed)[0]
    name = f"seed{seed}/{'retrain' if task else 'original'}"
    outcome = self._descend(
      name,
      network.after if task else network.before,
      self.start(network),
      network.request if task else Request(None, network.clients),
      num_rounds=self.recipe.rounds,
    )
    residual = outcome.notes["residual"]
    if self.releasing and residual > self.recipe.tolerance:
      raise ArithmeticError(
        f"{name}: after {self.recipe.rounds} rounds a round still moves the "
        f"clients by {residual:.2g}, above --tolerance="
        f"{self.recipe.tolerance:g}; take more --rounds."
      )
    return outcome

  def unlearn(self, method: str, case: Case[Network]) -> Outcome:
    """What a method makes of the original network."""
    if METHODS[method]:
      return super().unlearn(method, case)
    outcome = self._descend(
      f"seed{case.seed}/{method}",
      case.task.after,
      case.original.params,
      case.task.request,
      num_rounds=self.recipe.finetune_rounds,
      reference=case.retrained.params,
    )
    return self.unreleased(outcome)

  def _descend(
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
    session = self.session
    loop = session.communicating_loop if self._spread else session.loop
    transform = everywhere(descent.run(rule, loop), self.recipe.backend)

    def evaluate(params):
      return (metrics.distance(params, reference),)

    return session.phase(
      name,
      lambda: transform(jax.random.key(0), params, request),
      start=params,
      steps=num_rounds,
      models=tree.size(params) if self._spread else 1,
      evaluate=None if reference is None else evaluate,
      note=lambda info: {"residual": float(info["steps"]["residual"][-1])},
    )

  def bound(self, method: str, task: Network) -> Bound:
    """How far params are from retraining."""
    bound = retraining.bound(
      self.model,
      task.after,
      form=METHODS[method],
      features=inputs.PIXELS,
      tolerance=self.recipe.tolerance,
      head=task.head,
      backend=self.recipe.backend,
    )
    if not self._spread:
      return bound

    def measure(params, request):
      return bound.measure(*local_shard((params, request)))

    return bound._replace(measure=measure)

  def correct(
    self,
    phase: str,
    method: str,
    request: Request,
    params: Any,
    case: Case[Network],
  ) -> Outcome:
    """The phase of the Newton correction, before any noise.

    The curve has the communication rounds so far, and the distance to
    retraining.
    """
    step = self._newton(method, case.task, num_steps=1)
    outcome = self.session.phase(
      phase,
      lambda: methods.one_by_one(
        step, params, request, case.retrained.params, most=_NEWTON_STEPS
      ),
      start=params,
      steps=0,
      note=lambda history: {"history": history},
    )
    return outcome._replace(curve=outcome.notes["history"])

  def retrain(
    self, phase: str, method: str, request: Request, case: Case[Network]
  ) -> Outcome:
    """The phase of what a correction was to save: from the start again.

    A consensus is the minimizer of the mean risk, which Newton's method finds
    from anywhere.
    """
    start = self.start(case.task)
    if METHODS[method] == "stacked":
      return self._descend(
        phase, case.task.after, start, request, num_rounds=self.recipe.rounds
      )
    minimize = self._newton(method, case.task, num_steps=10 * _NEWTON_STEPS)
    return self.session.phase(
      phase,
      lambda: minimize(jax.random.key(0), start, request),
      start=start,
      steps=0,
    )

  def _newton(self, method, network, *, num_steps):
    return methods.newton(
      self.model,
      network,
      METHODS[method],
      max_distance=target(self.terms.max_distance),
      num_steps=num_steps,
      backend=self.recipe.backend,
    )

  def influence(self, network: Network) -> np.ndarray:
    """Norm of the predicted influence of the deletion on each client.

    To first order and without retraining, along the training from `start`.
    """
    loss, backend = cross_entropy(self.model), self.recipe.backend
    body = influence.propagate(
      network.before.round(loss),
      network.after.round(loss),
      num_rounds=self.recipe.rounds,
    )
    run = compiled(across(body, backend=backend, collective=True), backend)
    everything = self.start(network), network.clients, network.request.retain
    norms = run(*local_shard(everything))[1].norm
    return np.asarray(processes.gather(norms))[:, -1]

  def audit(
    self, method: str, outcome: Outcome, case: Case[Network]
  ) -> Evidence:
    """Utility, attack and distance at every client that has not left."""
    network = case.task
    gone = topology.removed(network.after.mixing)
    present = np.setdiff1d(np.arange(len(network.adjacency)), gone)
    parts = {
      "forget": records(network.request.forget),
      "retain": records(network.request.retain),
      "test": self.dataset.test,
    }
    kept = tree.take(outcome.params, present)
    logits = {
      name: outputs.predict(self.model, kept, part["input"], stacked=True)
      for name, part in parts.items()
    }
    found = metrics.distances(outcome.params, case.retrained.params)
    references = {"original": 0, "retrain": self.recipe.rounds}
    arrays = {"distances": found}
    if method == "original":
      arrays["influence"] = self.influence(network)
    return Evidence(
      {
        **metrics.measure(logits, {n: p["label"] for n, p in parts.items()}),
        "distance": float(np.linalg.norm(found[present])),
        "communication_rounds": references.get(
          method, int(outcome.curve[-1][0])
        ),
      },
      arrays,
    )

  def figures(self, findings: Findings) -> list[Any]:
    """The network, the way to retraining, and the noise; first seed."""
    (network,) = self.tasks(0)
    return [
      figures.left(findings, network, self.releasing),
      figures.progress(findings),
      self.calibration(),
    ]
