"""What a modality gives the runner.

A study trains models, unlearns from them and measures what is left. It says
nothing of seeds, rows, files or the order of things: that is the runner's.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from experiments.run.findings import Findings
from experiments.run.session import Outcome, Session
from junlearn import report


class Task(Protocol):
  """One request of one seed, with all that a modality needs of it.

  Attributes:
    name: of the request among those of a seed; "" where there is one only.
  """

  @property
  def name(self) -> str:
    """See above."""


T = TypeVar("T", bound=Task)


class Evidence(NamedTuple):
  """What an audit measured.

  Attributes:
    metrics: numbers by name.
    arrays: values behind them, for figures.
  """

  metrics: dict[str, float]
  arrays: Mapping[str, np.ndarray] = {}


class Case(NamedTuple, Generic[T]):
  """What the methods of one task are compared with.

  Attributes:
    task: the request.
    seed: of all that is drawn.
    original: the model that was trained on everything.
    retrained: the model that was trained without what is to be forgotten.
    target: what was measured of `retrained`; None while that is under way.
  """

  task: T
  seed: int
  original: Outcome
  retrained: Outcome
  target: Evidence | None = None


class Study(abc.ABC, Generic[T]):
  """One modality: its models, methods and measures.

  Attributes:
    session: of the phases; None where only what they left is measured.
  """

  METRICS: ClassVar[Sequence[report.Metric]]
  NOT_PROVEN: ClassVar[Sequence[str]]

  session: Session | None = None

  @property
  @abc.abstractmethod
  def title(self) -> str:
    """Of the report."""

  @abc.abstractmethod
  def tasks(self, seed: int) -> Sequence[T]:
    """The requests of a seed.

    Raises:
      ValueError: if they do not fit the data.
    """

  @abc.abstractmethod
  def steps(self, name: str, task: T) -> int:
    """Steps of one model: of a method, of "original" or "retrain".

    What all tasks share counts as "shared".
    """

  def begin(self, tasks: Sequence[Sequence[T]]) -> None:
    """Does what all tasks share, once the session is there."""

  @abc.abstractmethod
  def train(self, task: T | None, seed: int) -> Outcome:
    """The model without what a task forgets; for None, on everything."""

  def case(self, task: T, seed: int) -> Case[T]:
    """A task with both references, for what is no run of its own: claims."""
    case = Case(task, seed, self.train(None, seed), self.train(task, seed))
    return case._replace(target=self.audit("retrain", case.retrained, case))

  @abc.abstractmethod
  def unlearn(self, method: str, case: Case[T]) -> Outcome:
    """What a method makes of the original model."""

  @abc.abstractmethod
  def audit(self, method: str, outcome: Outcome, case: Case[T]) -> Evidence:
    """What is measured of a model; the method may be a reference's name."""

  @abc.abstractmethod
  def deletion(self, tasks: Sequence[T]) -> report.Deletion:
    """A request as the page tells it; `tasks` are its seeds."""

  @abc.abstractmethod
  def figures(self, findings: Findings) -> Sequence[Any]:
    """Of a request, for the page."""

  def sections(self, findings: Findings) -> Sequence[Any]:
    """More blocks of the page."""
    del findings
    return ()

  def chapter(self, name: str) -> str:
    """What the page calls a request."""
    return name

  def certificate(self) -> Mapping[str, Any] | None:
    """What the page shows of a certificate, if there is one."""
    return None
