"""Runs of LUNE, and of what it is compared with, without a stop.

Every method is judged at the first look at which its accuracy on phrasings that
it was not trained on is low enough. Learning rates are chosen on seeds of their
own, from one grid for all methods and ranks, by what is retained when the facts
are forgotten within half of the steps; of equally good rates, the highest.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.language import audit as language_audit
from experiments.language import tasks as language_tasks
from experiments.language.study import Study
from experiments.language.tasks import Corpus, Task
from experiments.run.session import Outcome
from junlearn.loop import NonFiniteError
from junlearn.nn.adapters import lora
from junlearn.nn.text import transformer

REQUESTS = ("author", "fraction")
EVERY = 2  # steps between two looks
FORGOTTEN = 0.1  # accuracy on held-out phrasings
TUNING_SEEDS = (1000, 1001)
_FRACTION = 0.1
_LOOKED = ("heldout", "replaced", "retain")


class Method(NamedTuple):
  """A method, its view and its options in `Study.unlearn`."""

  method: str
  view: str
  options: Mapping[str, Any] = {}


METHODS = {
  "lune": Method("lune", "lora", {"threshold": None}),
  "full fine-tuning": Method("lune", "full", {"threshold": None}),
  "ascent, adapters": Method("ascent", "lora"),
  "ascent, full": Method("ascent", "full"),
  "refusal, adapters": Method("idk", "lora", {"retain": None}),
}


class Point(NamedTuple):
  """What a curve says at one look."""

  steps: float
  heldout: float
  replaced: float
  retain: float


class Run(NamedTuple):
  """A method on one task.

  Attributes:
    rate: its learning rate.
    forgotten: at the first look at which the facts are forgotten, or None.
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
    self.study, self._seeds, self._rates = study, range(seeds), rates
    self._steps = study.recipe.unlearn_steps
    sizes = [
      language_tasks.num_known(study.corpus, _facts(study.corpus, name, 0))
      for name in REQUESTS
    ]
    self._capacity = max(sizes)

  @functools.cache  # noqa: B019  one bench lives as long as the run
  def task(self, request: str, seed: int) -> Task:
    """A request of a seed; all have arrays of the same shapes."""
    facts = _facts(self.study.corpus, request, seed)
    return language_tasks.make(
      self.study.corpus, request, facts, seed, capacity=self._capacity
    )

  @functools.cache  # noqa: B019
  def original(self, seed: int) -> Outcome:
    """The model that knows everything."""
    return self.study.train("original", seed)

  @functools.cache  # noqa: B019
  def _of_rank(self, rank: int) -> Study:
    """The study with adapters of another rank on the same scale."""
    study = self.study
    scale = study.recipe.alpha / study.recipe.rank
    recipe = study.recipe._replace(rank=rank, alpha=scale * rank)
    return Study(study.corpus, recipe, study.session)

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

    def retained(rate):
      runs = [
        self._run(name, seed, request, rate, rank, self._steps // 2)
        for seed in TUNING_SEEDS
      ]
      kept = sum(run.forgotten.retain for run in runs if run.forgotten)
      return kept, rate

    return max(self._rates, key=retained)

  def _run(self, name, seed, request, rate, rank, num_steps) -> Run:
    """A method on one task, without a stop."""
    entry, task = METHODS[name], self.task(request, seed)
    study = self.study if rank is None else self._of_rank(rank)
    place = name if rank is None else f"{name} of rank {rank}"
    asked = language_audit.short_sheet(
      study.corpus, {part: task.parts[part] for part in _LOOKED}
    )

    def evaluate(params):
      right = language_audit.accuracies(study.model, params, asked)
      return tuple(right[part] for part in _LOOKED)

    original = self.original(seed).params
    try:
      outcome = study.unlearn(
        f"{request}/{place}-{rate:g}",
        seed,
        task,
        original,
        method=entry.method,
        view=entry.view,
        learning_rate=rate,
        evaluate=evaluate,
        num_steps=num_steps,
        **entry.options,
      )
    except NonFiniteError:
      gone = Point(math.nan, 0.0, 0.0, 0.0)
      return Run(rate, None, gone, gone, None)
    points = [Point(*row) for row in outcome.curve]
    reached = (p for p in points if p.heldout <= FORGOTTEN)
    late = next(p for p in points if p.steps >= 2 * num_steps / 3)
    return Run(rate, next(reached, None), late, points[-1], outcome)

  def relearn(self) -> dict[str, np.ndarray]:
    """Accuracy on facts that an attacker did not see, `[seeds, looks, 2]`.

    Of what LUNE gives with its own stop, by either view, and of the retrained
    model.
    """
    curves: dict[str, list[np.ndarray]] = {}
    for seed in self._seeds:
      task = self.task("fraction", seed)
      for name in ("lune", "full fine-tuning", "retrain"):
        if name == "retrain":
          outcome = self.study.train("fraction/retrain", seed, task)
        else:
          outcome = self.study.unlearn(
            f"fraction/{name}, stopped",
            seed,
            task,
            self.original(seed).params,
            method="lune",
            view=METHODS[name].view,
            learning_rate=self._rate(name, "fraction", None),
          )
        _, arrays = language_audit.relearn(
          self.study.corpus,
          transformer.model(self.study.config),
          self.study.attacker,
          self.study.plain(outcome.params),
          task,
          seed=seed,
        )
        curves.setdefault(name, []).append(arrays["relearn/hidden"])
    return {name: np.stack(each) for name, each in curves.items()}

  def change(self) -> float:
    """Largest change of logits once LUNE's adapters are dropped."""
    study, task = self.study, self.task("author", 0)
    outcome = self.runs("lune", "author")[0].outcome
    inputs = task.request.forget["input"]
    apply = jax.jit(study.model.apply)
    before, _ = apply(self.original(0).params, inputs)
    after, _ = apply(lora.drop(outcome.params), inputs)
    return float(np.max(np.abs(before - after)))


def _facts(corpus: Corpus, request: str, seed: int) -> frozenset[int]:
  if request == "author":
    return language_tasks.one_author(corpus, seed)
  return language_tasks.by_fraction(corpus, _FRACTION, seed)
