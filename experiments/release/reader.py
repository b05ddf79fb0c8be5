"""Reads what a certified run kept of its releases, as it wrote it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic

import jax

from experiments.release import fallback, plain
from experiments.release.names import Name
from experiments.release.plain import PlainRelease, Training
from experiments.release.register import Answer, from_safetensors
from experiments.release.study import Study, T
from experiments.release.terms import Terms
from junlearn.certify import Bound
from junlearn.storage import checkpoint
from junlearn.transform import Request


class Reader(Generic[T]):
  """The releases of a run.

  Args:
    folder: of the run.
    study: as its flags describe it.
    training: `(study, method, task) -> ` what the models were trained with.

  Attributes:
    folder: as given.
  """

  def __init__(
    self,
    folder: Path,
    study: Study[T],
    training: Callable[[Any, str, Any], Training],
  ):
    self.folder = folder
    self._study, self._training = study, training
    self._bounds: dict[tuple[int, str], Bound] = {}

  def answer(self, name: Name) -> tuple[Answer, dict[str, Any]]:
    """A release, and the params by name that its noise must not point to.

    Raises:
      ValueError: if something is missing or damaged.
    """
    task, bound = self._task(name.seed), self._bound(name)
    requests, like = task.requests, self._study.start(task)
    places = {
      place: self._phase(f"seed{name.seed}/{place}", like)
      for place in ("original", "retrain")
    }
    if bound.norm == "joint" and name.index == len(requests) - 1:
      last = requests[-1]
      _check_yardstick(bound, places["retrain"], last, self._study.terms)

    def without_noise(index):
      """The params of a request, and whether they were retrained."""
      of_request = name._replace(index=index)
      return fallback.settle(
        self._study.terms,
        bound,
        requests[index],
        lambda stage: self._phase(of_request.phase(stage), like),
      )

    before = places["original"]
    if name.index:
      before, _ = without_noise(name.index - 1)
    params, retrained = without_noise(name.index)
    published = self.folder / f"releases/{name}/params.safetensors"
    answer = Answer(
      name=name,
      bound=bound,
      request=requests[name.index],
      before=before,
      corrected=params,
      released=from_safetensors(published, jax.device_get(like)),
      fallback=retrained,
    )
    return answer, {"before": before, **places}

  def plain(self, answer: Answer, places: dict[str, Any]) -> PlainRelease:
    """The same as plain arrays and numbers."""
    name = answer.name
    training = self._training(self._study, name.method, self._task(name.seed))
    return plain.describe(answer, places, training, self._study.terms)

  def _task(self, seed: int) -> T:
    (task,) = self._study.tasks(seed)
    return task

  def _bound(self, name: Name) -> Bound:
    """Compiled once for all releases that it holds of."""
    key = name.seed, name.method
    if key not in self._bounds:
      self._bounds[key] = self._study.bound(name.method, self._task(name.seed))
    return self._bounds[key]

  def _phase(self, name: str, like: Any) -> Any:
    """The params of a phase, in the structure of others."""
    return checkpoint.load(self.folder / "checkpoints" / name, like)


def _check_yardstick(
  bound: Bound, retrained: Any, request: Request, terms: Terms
) -> None:
  """What the run compares with must be where retraining leads."""
  distance = float(bound.distance(retrained, request))
  if not distance <= terms.max_distance + bound.retrain_error:
    raise ValueError(
      f"checkpoints hold a retrained model that is {distance:.3g} from where "
      "retraining leads; it is another one."
    )
