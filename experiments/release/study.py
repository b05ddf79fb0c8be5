"""A study whose methods answer each request by a certified release.

A modality gives the requests, the bound, the correction, the retraining and the
audit; budget, noise, certificates, ledger and what the page says of them are
the same for all.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import jax

from experiments.release import fallback, page, requests
from experiments.release.names import Name
from experiments.release.register import Answer, Register
from experiments.release.terms import Terms
from experiments.run import study
from experiments.run.session import Outcome
from experiments.run.study import Case
from junlearn import report
from junlearn.certify import Bound, certified
from junlearn.transform import Request, Result


class Task(study.Task, Protocol):
  """What is to be forgotten, in one or several requests.

  Attributes:
    requests: one after the other; each names all that is to be forgotten by
      then.
  """

  @property
  def requests(self) -> Sequence[Request]:
    """See above."""


T = TypeVar("T", bound=Task)


class _Answered(NamedTuple):
  """What came of one request.

  Attributes:
    params: without noise.
    phases: the correction, the retraining if there was one, and the release.
  """

  params: Any
  phases: Sequence[Outcome]


class Study(study.Study[T]):
  """See above.

  Args:
    terms: of the releases.
    releasing: methods, of those asked for, whose releases are certified; there
      is no register without one, and nothing that is sent out.

  Attributes:
    terms: as given.
    releasing: as given.
  """

  EXPERIMENT: ClassVar[str]  # as `experiments.verify_certificate` knows it

  def __init__(self, terms: Terms, releasing: Sequence[str]):
    self.terms, self.releasing = terms, tuple(releasing)
    self._register: Register | None = None

  @abc.abstractmethod
  def start(self, task: T) -> Any:
    """What every training begins with."""

  @abc.abstractmethod
  def fit(self, task: T | None, seed: int) -> Outcome:
    """As `train`; the hash of the params is replaced there."""

  @abc.abstractmethod
  def bound(self, method: str, task: T) -> Bound:
    """How far params are from what retraining leads to."""

  @abc.abstractmethod
  def correct(
    self, phase: str, method: str, request: Request, params: Any, case: Case[T]
  ) -> Outcome:
    """The phase of this name that corrects params, without noise.

    The first number of its curve's rows counts from 0.
    """

  @abc.abstractmethod
  def retrain(
    self, phase: str, method: str, request: Request, case: Case[T]
  ) -> Outcome:
    """The phase of what is released where corrections are not near enough."""

  def begin(self, tasks: Sequence[Sequence[T]]) -> None:
    """Opens the register, and keeps what was asked for."""
    if not self.releasing:
      return
    workdir = self.session.workdir
    self._register = Register(workdir, self.terms, self.EXPERIMENT)
    self._register.keep_requests(
      {
        f"seed{seed}": requests.present_ids(task.requests[-1].forget)
        for seed, (task,) in enumerate(tasks)
      }
    )

  def train(self, task: T | None, seed: int) -> Outcome:
    """The model without what the task forgets; for None, on everything."""
    return self.unreleased(self.fit(task, seed))

  def unreleased(self, outcome: Outcome) -> Outcome:
    """The outcome of params that are not released, as a row may show it.

    They know the records: a keyed fingerprint stands for their hash, by which
    whoever has candidates could try them all.
    """
    if self._register is None:
      return outcome
    keyed = self._register.fingerprint(outcome.params)
    return outcome._replace(params_sha256=keyed)

  def unlearn(self, method: str, case: Case[T]) -> Outcome:
    """Answers the requests one after the other.

    Returns:
      The last release, with the costs of all; its notes and arrays have what
      was measured before the noise.

    Raises:
      ArithmeticError: if the budget is spent or a bound is not met; the
        releases before stay.
    """
    bound = self.bound(method, case.task)
    answered = [_Answered(case.original.params, ())]
    for index, request in enumerate(case.task.requests):
      name = Name(case.seed, method, index)
      before = answered[-1].params
      answered.append(self._answer(name, bound, request, before, case))
    return self._summary(method, answered[1:], case)

  def _answer(
    self, name: Name, bound: Bound, request: Request, before: Any, case: Case[T]
  ) -> _Answered:
    """Answers one request by a release, which the register enters."""
    phases = []

    def phase(stage):
      place = name.phase(stage)
      phases.append(
        self.correct(place, name.method, request, before, case)
        if stage == "corrected"
        else self.retrain(place, name.method, request, case)
      )
      return phases[-1].params

    self._register.fits(name)
    params, retrained = fallback.settle(self.terms, bound, request, phase)
    released = self._release(name, bound, request, params)
    self._register.enter(
      Answer(
        name=name,
        bound=bound,
        request=request,
        before=before,
        corrected=params,
        released=released.params,
        fallback=retrained,
      )
    )
    return _Answered(params, [*phases, released])

  def _release(
    self, name: Name, bound: Bound, request: Request, params: Any
  ) -> Outcome:
    """The phase that checks the bound and adds the noise.

    The noise is the operating system's and is kept nowhere: once written, the
    release is read back, never drawn again.
    """
    transform = certified(
      lambda key, params, request: Result(params, request, {}),
      bound,
      epsilon=self.terms.each,
      delta=self.terms.delta,
      max_distance=self.terms.max_distance,
    )

    def draw():
      self._register.refuse_another(name)
      return transform(jax.random.key(0), params, request)

    return self.session.phase(
      name.phase("released"),
      draw,
      start=params,
      steps=0,
      note=lambda info: {
        "bound": info["release"].measured.result,
        "sigma": info["release"].sigma,
      },
    )

  def _summary(
    self, method: str, answered: Sequence[_Answered], case: Case[T]
  ) -> Outcome:
    """The last release, with what was measured and spent before it."""
    phases = [phase for each in answered for phase in each.phases]
    curve = _joined([each.phases[0].curve for each in answered])
    whole = phases[-1]._replace(
      seconds=sum(phase.seconds for phase in phases),
      compile=sum(phase.compile for phase in phases),
      curve=curve,
    )
    exact = whole._replace(params=answered[-1].params)
    before = self.audit(method, exact, case)
    distance = {"distance_before_noise": before.metrics["distance"]}
    return whole._replace(
      notes=whole.notes | distance,
      arrays={f"{k}_before_noise": v for k, v in before.arrays.items()},
    )

  def deletion(self, tasks: Sequence[T]) -> report.Deletion:
    """The request as the page tells it; names nobody if it is sent out."""
    forget, retain = (
      requests.present_ids(part) for part in tasks[0].requests[-1][:2]
    )
    return report.Deletion(
      ids=forget,
      total=len(forget) + len(retain),
      selection="This is the request of the first seed.",
      private=bool(self.releasing),
    )

  def certificate(self) -> Mapping[str, Any] | None:
    """What the page shows of the first seed's last certificate."""
    return page.public(self._shown()) if self.releasing else None

  def calibration(self) -> Any:
    """The figure of its noise; None without a certificate."""
    if not self.releasing:
      return None
    return page.calibration(self._shown(), self.terms)

  def _shown(self) -> dict[str, Any]:
    name = Name(0, self.releasing[0], self.terms.requests - 1)
    return page.certificate(self.session.workdir, name)


def _joined(curves: Sequence[list[list[float]]]) -> list[list[float]]:
  """One curve after the other; each begins at 0 steps."""
  joined = list(curves[0])
  for curve in curves[1:]:
    last = joined[-1][0]
    joined += [[last + row[0], *row[1:]] for row in curve[1:]]
  return joined
