"""Certified deletion from one linear classifier, phase by phase.

    F(w) = mean_x CE(w, x) + (l2 / 2) |w|^2

is strongly convex, so that its gradient on the retained records proves how far
any w is from retraining. Newton's method takes the released classifier there.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.release import answering
from experiments.release.register import Register
from experiments.release.terms import Terms
from experiments.run.meter import Meter
from experiments.run.session import Outcome, Session
from experiments.run.workdir import Workdir
from junlearn import nn
from junlearn.audit import predict, signals, utility
from junlearn.certify import Bound
from junlearn.data import Dataset, select
from junlearn.methods import newton
from junlearn.model import Model, from_linen
from junlearn.transform import Request, Transform

METHOD = "newton"
# Of a retrained classifier to its own optimum, rounding included.
COMPARATOR = 1e-6
_STEPS = 50  # of Newton's method, many more than a convex risk needs


class Problem(NamedTuple):
  """What a run is asked for.

  Attributes:
    dataset: with flat float64 inputs of norm 1.
    requests: of each seed, one after the other; each names all that is to be
      forgotten by then.
    l2: strength of the penalty.
    terms: of the releases.
    model: the classifier.
    bound: how far its params are from retraining.
  """

  dataset: Dataset
  requests: tuple[tuple[Request, ...], ...]
  l2: float
  terms: Terms
  model: Model
  bound: Bound

  @property
  def start(self) -> Any:
    """What every training begins with: zeros."""
    inputs = np.float32(self.dataset.train["input"][:1])  # for shapes alone
    abstract = jax.eval_shape(self.model.init, jax.random.key(0), inputs)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float64), abstract)


def divide(
  dataset: Dataset, forgotten: Sequence[np.ndarray], number: int
) -> tuple[tuple[Request, ...], ...]:
  """So many successive requests of each seed.

  Args:
    dataset: whose training records are asked for.
    forgotten: their ids, by seed.
    number: at least 1.

  Raises:
    ValueError: if there are fewer ids, or one that no record has.
  """
  return tuple(
    tuple(
      select.by_id(dataset.train, ids)
      for ids in answering.successive(of_seed, number)
    )
    for of_seed in forgotten
  )


def problem(
  dataset: Dataset,
  requests: tuple[tuple[Request, ...], ...],
  *,
  features: str,
  l2: float,
  terms: Terms,
) -> Problem:
  """A linear classifier and its bound; see `Problem`.

  Args:
    dataset: as there.
    requests: as there.
    features: what the inputs are, see `newton.bound`.
    l2: as there, above 0.
    terms: as there.

  Raises:
    ValueError: if `l2` is out of range or `features` is empty.
  """
  model = from_linen(nn.MLP(dataset.num_classes, hidden=()))
  bound = newton.bound(model, l2=l2, features=features, comparator=COMPARATOR)
  return Problem(dataset, requests, l2, terms, model, bound)


def release_names(seeds: int, requests: int) -> list[str]:
  """The releases of a run, in the order of the ledger."""
  return [
    f"seed{seed}/{METHOD}/{index}"
    for seed in range(seeds)
    for index in range(requests)
  ]


def run(workdir: Workdir, session: Session, problem: Problem) -> None:
  """Trains, answers every request and audits, seed by seed.

  Raises:
    ArithmeticError: if a training does not reach its optimum, the budget is
      spent or a bound is not met; the releases before stay.
  """
  register = Register(workdir, problem.terms, "classification")
  register.keep_requests(
    {
      f"seed{seed}": requests[-1].forget["id"].tolist()
      for seed, requests in enumerate(problem.requests)
    }
  )
  for seed in range(len(problem.requests)):
    _Seed(workdir, session, register, problem, seed).run()


class _Seed:
  """One seed: both references, and a release for each of its requests."""

  def __init__(self, workdir, session, register, problem, seed):
    self._workdir, self._session = workdir, session
    self._register, self._problem, self._seed = register, problem, seed
    self._requests = problem.requests[seed]

  def run(self) -> None:
    everything = Request(forget=None, retain=self._problem.dataset.train)
    original = self._train(f"seed{self._seed}/original", everything)
    retrained = self._train(f"seed{self._seed}/retrain", self._requests[-1])
    self._add("retrain", retrained, retrained)
    self._add("original", original, retrained)
    corrections, before = [], original.params
    for index in range(len(self._requests)):
      released, corrected = self._answer(index, before)
      corrections.append(corrected)
      before = corrected.params
    self._add(METHOD, released, retrained, corrections)

  def _answer(self, index: int, before: Any) -> tuple[Outcome, Outcome]:
    request = self._requests[index]
    max_distance = self._problem.terms.max_distance
    return answering.answer(
      self._session,
      self._register,
      self._problem.terms,
      self._problem.bound,
      name=f"seed{self._seed}/{METHOD}/{index}",
      request=request,
      seed=self._seed,
      before=before,
      correct=lambda name: self._minimise(name, request, before, max_distance),
      retrain=lambda name: self._minimise(
        name, request, self._problem.start, max_distance
      ),
    )

  def _train(self, name: str, request: Request) -> Outcome:
    """The phase of a training from zeros.

    Raises:
      ArithmeticError: if it is not known to be within `COMPARATOR`.
    """
    outcome = self._minimise(name, request, self._problem.start, COMPARATOR)
    distance = float(self._problem.bound.distance(outcome.params, request))
    if not distance <= COMPARATOR:
      raise ArithmeticError(
        f"{name}: Newton's method ends {distance:.2g} from the optimum, above "
        f"{COMPARATOR:g}; take a larger --l2."
      )
    return outcome

  def _minimise(
    self, name: str, request: Request, start: Any, distance: float
  ) -> Outcome:
    """The phase of Newton's method until it is so near the optimum."""
    transform = _newton(self._problem.model, self._problem.l2, distance)
    return self._session.phase(
      name,
      lambda: transform(jax.random.key(0), start, request),
      start=start,
      steps=0,
    )

  def _add(
    self,
    method: str,
    outcome: Outcome,
    retrained: Outcome,
    corrections: Sequence[Outcome] = (),
  ) -> None:
    """Adds the row that is not there yet."""
    if self._workdir.row(method, self._seed) is not None:
      return
    meter = Meter()
    metrics = self._audit(outcome.params)
    metrics["distance"] = _distance(outcome, retrained)
    digest = outcome.params_sha256
    if corrections:
      metrics["distance_before_noise"] = _distance(corrections[-1], retrained)
    else:  # it knows the records and is not released
      digest = self._register.fingerprint(outcome.params)
    parts = [outcome, *corrections]
    whole = outcome._replace(
      seconds=sum(part.seconds for part in parts),
      compile=sum(part.compile for part in parts),
      params_sha256=digest,
    )
    self._workdir.add_row(
      whole.row(
        method, self._seed, metrics, retrain=retrained.seconds, audit=meter
      )
    )

  def _audit(self, params: Any) -> dict[str, float]:
    """Utility, and how well confidence tells forgotten from test records."""
    request = self._requests[-1]
    parts = {
      "forget": request.forget,
      "retain": request.retain,
      "test": self._problem.dataset.test,
    }
    outputs = {
      name: (
        predict.predict(self._problem.model, params, part["input"]),
        part["label"],
      )
      for name, part in parts.items()
    }
    return {
      **{
        f"{name}_accuracy": utility.accuracy(*found)
        for name, found in outputs.items()
      },
      "attack_auc": answering.attack_auc(
        signals.confidence(*outputs["forget"]),
        signals.confidence(*outputs["test"]),
      ),
    }


@functools.cache
def _newton(model: Model, l2: float, distance: float) -> Transform:
  """The transform, made once so that all seeds share its program.

  It goes to half the distance: the bound has an allowance for rounding too.
  """
  return newton.transform(
    model, l2=l2, max_distance=distance / 2, num_steps=_STEPS
  )


def _distance(outcome: Outcome, reference: Outcome) -> float:
  return float(
    optax.tree.norm(optax.tree.sub(outcome.params, reference.params))
  )
