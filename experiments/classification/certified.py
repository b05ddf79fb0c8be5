"""Certified deletion from one linear classifier.

    F(w) = mean_x CE(w, x) + (l2 / 2) |w|^2

is strongly convex, so that its gradient on the retained records proves how far
any w is from retraining. Newton's method takes the released classifier there.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.classification import certified_metrics, tasks
from experiments.classification.tasks import Asked
from experiments.release import study
from experiments.release.requests import successive
from experiments.release.terms import Terms, target
from experiments.run import program
from experiments.run.findings import Findings
from experiments.run.options import Flag
from experiments.run.session import Outcome
from experiments.run.study import Case, Evidence
from junlearn import nn
from junlearn.audit import outputs
from junlearn.certify import Bound
from junlearn.data import Dataset, select
from junlearn.methods import newton
from junlearn.model import Model, from_linen
from junlearn.transform import Request, Transform

METHOD = "newton"
# Of a retrained classifier to its own optimum, rounding included.
RETRAIN_ERROR = 1e-6
_STEPS = 50  # of Newton's method, many more than a convex risk needs


class Recipe(NamedTuple):
  """What is deleted from."""

  l2: Annotated[
    float,
    Flag(
      "With --certify, penalty on all parameters of the classifier.", above=0.0
    ),
  ] = 0.01
  features: Annotated[
    str | None,
    Flag(
      "With --certify, folder of a run on other data, whose first net makes "
      "the inputs (default: pixels)."
    ),
  ] = None


class Task(NamedTuple):
  """One seed.

  Attributes:
    requests: one after the other; each names all that is to be forgotten by
      then.
    name: of the task, the only one of its seed.
  """

  requests: tuple[Request, ...]
  name: str = ""


class Study(study.Study[Task]):
  """A linear classifier of one data set; every training is a phase.

  Args:
    dataset: with flat float64 inputs of norm 1.
    features: what the inputs are, see `newton.bound`.
    asked: what is to be forgotten.
    l2: strength of the penalty, above 0.
    terms: of the releases.

  Raises:
    ValueError: if `l2` is out of range or `features` is empty.
  """

  EXPERIMENT = "classification"
  METRICS = certified_metrics.METRICS
  NOT_PROVEN = certified_metrics.NOT_PROVEN

  def __init__(
    self,
    dataset: Dataset,
    features: str,
    *,
    asked: Asked,
    l2: float,
    terms: Terms,
  ):
    super().__init__(terms, [METHOD])
    self.dataset, self.l2, self._asked = dataset, l2, asked
    self.model = from_linen(nn.MLP(dataset.num_classes, hidden=()))
    self._bound = newton.bound(
      self.model, l2=l2, features=features, retrain_error=RETRAIN_ERROR
    )

  @property
  def title(self) -> str:
    """Of the report."""
    return f"Forgetting records of {self.dataset.name} with a certificate"

  @functools.cache  # noqa: B019  one study lives as long as the run
  def tasks(self, seed: int) -> list[Task]:
    """The requests of a seed."""
    train = self.dataset.train
    ids = tasks.request(train, self._asked, seed).forget["id"]
    with program.naming("requests"):
      named = successive(ids, self.terms.requests)
    return [Task(tuple(select.by_id(train, each) for each in named))]

  def steps(self, name: str, task: Task) -> int:
    """None: Newton's method does not count as a loop."""
    del name, task
    return 0

  def start(self, task: Task | None = None) -> Any:
    """What every training begins with: zeros."""
    del task
    inputs = np.float32(self.dataset.train["input"][:1])  # for shapes alone
    abstract = jax.eval_shape(self.model.init, jax.random.key(0), inputs)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float64), abstract)

  def fit(self, task: Task | None, seed: int) -> Outcome:
    """The classifier trained from zeros.

    Raises:
      ArithmeticError: if it is not known to be within `RETRAIN_ERROR`.
    """
    name = f"seed{seed}/{'retrain' if task else 'original'}"
    everything = Request(forget=None, retain=self.dataset.train)
    request = task.requests[-1] if task else everything
    outcome = self._minimize(name, request, self.start(), RETRAIN_ERROR)
    distance = float(self._bound.distance(outcome.params, request))
    if not distance <= RETRAIN_ERROR:
      raise ArithmeticError(
        f"{name}: Newton's method ends {distance:.2g} from the optimum, above "
        f"{RETRAIN_ERROR:g}; take a larger --l2."
      )
    return outcome

  def bound(self, method: str, task: Task) -> Bound:
    """How far params are from retraining."""
    del method, task
    return self._bound

  def correct(
    self,
    phase: str,
    method: str,
    request: Request,
    params: Any,
    case: Case[Task],
  ) -> Outcome:
    """The phase of Newton's method from the params before."""
    del method, case
    return self._minimize(phase, request, params, self.terms.max_distance)

  def retrain(
    self, phase: str, method: str, request: Request, case: Case[Task]
  ) -> Outcome:
    """The phase of Newton's method from zeros."""
    return self.correct(phase, method, request, self.start(), case)

  def _minimize(
    self, name: str, request: Request, start: Any, distance: float
  ) -> Outcome:
    """The phase of Newton's method until it is so near the optimum."""
    transform = _newton(self.model, self.l2, distance)
    return self.session.phase(
      name,
      lambda: transform(jax.random.key(0), start, request),
      start=start,
      steps=0,
    )

  def audit(self, method: str, outcome: Outcome, case: Case[Task]) -> Evidence:
    """Utility, attack and distance."""
    del method
    request = case.task.requests[-1]
    parts = {
      "forget": request.forget,
      "retain": request.retain,
      "test": self.dataset.test,
    }
    logits = {
      name: outputs.predict(self.model, outcome.params, part["input"])
      for name, part in parts.items()
    }
    labels = {name: part["label"] for name, part in parts.items()}
    apart = optax.tree.sub(outcome.params, case.retrained.params)
    return Evidence(
      {
        **certified_metrics.measure(logits, labels),
        "distance": float(optax.tree.norm(apart)),
      }
    )

  def figures(self, findings: Findings) -> Sequence[Any]:
    """The noise."""
    del findings
    return [self.calibration()]


@functools.cache
def _newton(model: Model, l2: float, distance: float) -> Transform:
  """The transform, made once so that all seeds share its program."""
  return newton.transform(
    model, l2=l2, max_distance=target(distance), num_steps=_STEPS
  )
