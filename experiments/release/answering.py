"""What certified experiments share: inputs, successive requests, releases."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from sklearn import metrics as sklearn_metrics

from experiments.release.register import Answer, Register
from experiments.release.terms import Terms
from experiments.run.session import Outcome, Session
from junlearn.certify import Bound, certified
from junlearn.data import Dataset
from junlearn.transform import Request, Result

PIXELS = (
  "The inputs are the pixels of each record, scaled to norm 1 by the record "
  "alone, so that no other record has a part in them."
)


def unit_norm(dataset: Dataset) -> Dataset:
  """The data set with flat float64 inputs of Euclidean norm 1.

  A bound on the norm that holds for every record that could be asked for is
  part of a certificate's assumptions.
  """

  def flat(examples):
    x = np.asarray(examples["input"], np.float64)
    x = x.reshape(len(x), -1)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return {**examples, "input": x / np.where(norm > 0, norm, 1)}

  return dataset._replace(train=flat(dataset.train), test=flat(dataset.test))


def successive(ids: Sequence[int], number: int) -> list[Any]:
  """The ids that each of so many requests names, those before it included.

  Raises:
    ValueError: if there are more requests than ids.
  """
  if number > len(ids):
    raise ValueError(
      f"{number} requests were asked for; with {len(ids)} records to forget "
      "there are as many at most."
    )
  ends = np.cumsum([len(part) for part in np.array_split(ids, number)])
  return [ids[:end] for end in ends]


def attack_auc(forget: np.ndarray, test: np.ndarray) -> float:
  """Share of pairs of a forgotten and a test record that a score orders."""
  truth = np.repeat([1, 0], [len(forget), len(test)])
  return float(
    sklearn_metrics.roc_auc_score(truth, np.concatenate([forget, test]))
  )


def answer(
  session: Session,
  register: Register,
  terms: Terms,
  bound: Bound,
  *,
  name: str,
  request: Request,
  seed: int,
  before: Any,
  correct: Callable[[str], Outcome],
  retrain: Callable[[str], Outcome],
) -> tuple[Outcome, Outcome]:
  """Answers one request by a release, which the register enters.

  Args:
    session: of the phases.
    register: of the run.
    terms: of its releases.
    bound: that must hold of the params before the noise.
    name: of the release; those of its phases begin with it.
    request: that is answered.
    seed: of the data.
    before: params before the request.
    correct: the phase of this name that corrects them, without noise.
    retrain: the same of what is released where that is not near enough.

  Returns:
    The release, and what it was before the noise.

  Raises:
    BudgetError: if the budget is spent; nothing is released then.
    NotReachedError: if the bound is not met; the same.
  """
  register.fits(name, bound)
  corrected = correct(f"{name}-corrected")
  fallback = must_retrain(bound, corrected.params, request, terms)
  if fallback:
    again = retrain(f"{name}-retrained")
    corrected = again._replace(
      seconds=corrected.seconds + again.seconds,
      compile=corrected.compile + again.compile,
      notes={**corrected.notes, **again.notes, "fallback": True},
    )
  released = _release(
    session, register, name, bound, request, corrected.params, terms
  )
  register.enter(
    Answer(
      name=name,
      bound=bound,
      request=request,
      seed=seed,
      before=before,
      corrected=corrected.params,
      released=released.params,
      fallback=fallback,
    )
  )
  return released, corrected


def must_retrain(
  bound: Bound, corrected: Any, request: Request, terms: Terms
) -> bool:
  """Whether params are not near enough, and the terms have a fallback."""
  distance = float(bound.distance(corrected, request))
  return terms.retrain and not distance <= terms.max_distance


def _release(
  session, register, name, bound, request, corrected, terms
) -> Outcome:
  """The phase that checks the bound and adds the noise.

  The noise is the operating system's and is kept nowhere: once written, the
  release is read back, never drawn again.
  """
  transform = certified(
    lambda key, params, request: Result(params, request, {}),
    bound,
    epsilon=terms.each,
    delta=terms.delta,
    max_distance=terms.max_distance,
  )

  def draw():
    register.refuse_another(name)
    return transform(jax.random.key(0), corrected, request)

  return session.phase(
    f"{name}-released",
    draw,
    start=corrected,
    steps=0,
    note=lambda info: {
      "bound": info["release"].measured.result,
      "sigma": info["release"].sigma,
    },
  )
