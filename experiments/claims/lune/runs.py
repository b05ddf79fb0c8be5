"""Runs of LUNE, and of what it is compared with, without a stop.

Every method is judged at the first evaluation at which its accuracy on
paraphrases that it was not trained on is low enough. Learning rates are chosen
on seeds of their own, from one grid for all methods and ranks, by what is
retained when the facts are forgotten within half of the steps; of equally good
rates, the highest.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.language.methods import Variant
from experiments.language.study import Study
from experiments.language.tasks import Task
from experiments.run import tuning
from experiments.run.session import Outcome
from junlearn.loop import NonFiniteError

REQUESTS = ("author", "fraction")
EVERY = 2  # steps between two evaluations
FORGOTTEN = 0.1  # accuracy on held-out paraphrases
_TUNING_SEEDS = (1000, 1001)


class Method(NamedTuple):
  """A method with its view, and its options in `Study.apply`."""

  variant: Variant
  options: Mapping[str, Any] = {}


METHODS = {
  "lune": Method(Variant("lune", "lora"), {"threshold": None}),
  "full fine-tuning": Method(Variant("lune", "full"), {"threshold": None}),
  "ascent, adapters": Method(Variant("ascent", "lora")),
  "ascent, full": Method(Variant("ascent", "full")),
  "refusal, adapters": Method(Variant("idk", "lora"), {"retain": None}),
}


class Point(NamedTuple):
  """What a curve says at one evaluation."""

  steps: float
  heldout: float
  replaced: float
  retain: float


class Run(NamedTuple):
  """A method on one task.

  Attributes:
    rate: its learning rate.
    forgotten: at the first evaluation at which the facts are forgotten, or
      None.
    late: when a third of the steps is left.
    last: after the last step.
    outcome: of the phase; None if it diverged.
  """

  rate: float
  forgotten: Point | None
  late: Point
  last: Point
  outcome: Outcome | None


# Request -> method -> the runs of all seeds.
Found = Mapping[str, Mapping[str, Sequence[Run]]]


class Bench:
  """Runs methods on tasks; a model is trained once for each seed."""

  def __init__(self, study: Study, seeds: int, rates: Sequence[float]):
    self.study, self._seeds = study, range(seeds)
    self._rates = sorted(rates, reverse=True)
    self._steps = study.recipe.unlearn_steps

  @functools.cache  # noqa: B019  one bench lives as long as the run
  def tasks(self, seed: int) -> dict[str, Task]:
    """The requests of a seed, by name."""
    return {task.name: task for task in self.study.tasks(seed)}

  @functools.cache  # noqa: B019
  def original(self, seed: int) -> Outcome:
    """The model that knows everything."""
    return self.study.train(None, seed)

  @functools.cache  # noqa: B019
  def _of_rank(self, rank: int | None) -> Study:
    """The study with adapters of another rank on the same scale."""
    study = self.study
    if rank is None:
      return study
    scale = study.recipe.alpha / study.recipe.rank
    other = Study(
      study.corpus, study.recipe._replace(rank=rank, alpha=scale * rank)
    )
    other.session = study.session
    return other

  def runs(self, name: str, request: str, rank: int | None = None) -> list[Run]:
    """A method on the tasks of all seeds, at its rate."""
    rate = self._rate(name, request, rank)
    return [
      self._run(name, seed, request, rate, rank, self._steps)
      for seed in self._seeds
    ]

  @functools.cache  # noqa: B019
  def _rate(self, name: str, request: str, rank: int | None) -> float:
    """The rate with the most retained where the facts are forgotten."""

    def lost(rate, seed):
      run = self._run(name, seed, request, rate, rank, self._steps // 2)
      return -run.forgotten.retain if run.forgotten else 0.0

    return tuning.best(lost, self._rates, _TUNING_SEEDS)

  def _run(self, name, seed, request, rate, rank, num_steps) -> Run:
    """A method on one task, without a stop."""
    variant, options = METHODS[name]
    task, study = self.tasks(seed)[request], self._of_rank(rank)
    place = name if rank is None else f"{name} of rank {rank}"
    original = self.original(seed).params
    try:
      outcome = study.apply(
        f"{request}/{place}-{rate:g}",
        seed,
        variant,
        original,
        task,
        learning_rate=rate,
        evaluate=study.tracker(task, Point._fields[1:]),
        num_steps=num_steps,
        **options,
      )
    except NonFiniteError:
      gone = Point(math.nan, 0.0, 0.0, 0.0)
      return Run(rate, None, gone, gone, None)
    points = [Point(*row) for row in outcome.curve]
    reached = (p for p in points if p.heldout <= FORGOTTEN)
    late = next(p for p in points if p.steps >= 2 * num_steps / 3)
    return Run(rate, next(reached, None), late, points[-1], outcome)

  def relearn(self) -> dict[str, np.ndarray]:
    """Accuracy on facts that an attacker did not see.

    Of what LUNE gives with its own stop, by either view, and of the retrained
    model: `[seeds, evaluations, 2]` of steps and accuracies.
    """
    curves: dict[str, list[np.ndarray]] = {}
    for seed in self._seeds:
      task = self.tasks(seed)["fraction"]
      models = {
        name: self.study.apply(
          f"fraction/{name}, stopped",
          seed,
          METHODS[name].variant,
          self.original(seed).params,
          task,
          learning_rate=self._rate(name, "fraction", None),
        )
        for name in ("lune", "full fine-tuning")
      } | {"retrain": self.study.train(task, seed)}
      for name, outcome in models.items():
        params = self.study.plain(outcome.params)
        found = self.study.relearned(params, task, seed)
        curves.setdefault(name, []).append(found.arrays["relearn/hidden"])
    return {name: np.stack(each) for name, each in curves.items()}

  def change(self) -> float:
    """Largest change of logits once LUNE's adapters are dropped."""
    study, task = self.study, self.tasks(0)["author"]
    outcome = self.runs("lune", "author")[0].outcome
    inputs = task.request.forget["input"]
    apply = jax.jit(study.model.apply)
    before, _ = apply(self.original(0).params, inputs)
    after, _ = apply(study.recipe.adapters.drop(outcome.params), inputs)
    return float(np.max(np.abs(before - after)))
