"""Claims of LUNE (arXiv 2512.07375): facts overwritten by negative examples.

Fictitious authors; requests for one author and for a tenth of them. Every
method runs without a stop and is compared at the first look at which its
accuracy on phrasings that it was not trained on is at most 0.1. Learning rates
are chosen on seeds of their own, from one grid for all methods and ranks, by
what is retained when the facts are forgotten within half of the steps; of
equally good rates, the highest. Numbers are means over seeds.
"""

import functools
import math
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import flags

from experiments import language_audit, language_study, language_tasks
from experiments.claims.claim import Claim
from experiments.language_study import Recipe, Study
from experiments.language_tasks import Corpus, Task
from experiments.session import Outcome, Session
from experiments.workdir import Workdir
from junlearn.loop import NonFiniteError
from junlearn.nn import lora, transformer

_RANKS = (1, 2, 4, 8, 16)
_TUNING_SEEDS = (1000, 1001)
_REQUESTS = ("author", "fraction")
_FRACTION = 0.1
_EVERY = 2  # steps between two looks
_FORGOTTEN = 0.1  # accuracy on held-out phrasings
_WIDE = 256  # of the decoder on which costs are compared too
_LOOKED = ("heldout", "replaced", "retain")

_AUTHORS = flags.DEFINE_integer(
  "lune_authors", 60, "Authors that LUNE's models know.", lower_bound=10
)
_TRAINING = flags.DEFINE_integer(
  "lune_training_steps", Recipe().steps, "Of LUNE's models.", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
  "lune_steps", 240, "Of LUNE and what it is compared with.", lower_bound=8
)
_RATES = flags.DEFINE_multi_float(
  "lune_rates", [1e-4, 3e-4, 1e-3, 3e-3], "Learning rates to choose from."
)


class _Method(NamedTuple):
  """A method, its view and its options in `Study.unlearn`."""

  method: str
  view: str
  options: Mapping[str, Any] = {}


_METHODS = {
  "lune": _Method("lune", "lora", {"threshold": None}),
  "full fine-tuning": _Method("lune", "full", {"threshold": None}),
  "ascent, adapters": _Method("ascent", "lora"),
  "ascent, full": _Method("ascent", "full"),
  "refusal, adapters": _Method("idk", "lora", {"retain": None}),
}


class _Point(NamedTuple):
  """What a curve says at one look."""

  steps: float
  heldout: float
  replaced: float
  retain: float


class _Run(NamedTuple):
  """A method on one task.

  Attributes:
    rate: its learning rate.
    forgotten: at the first look at which the facts are forgotten, or None.
    late: when a third of the steps is left.
    last: after the last step.
    outcome: of the phase; None if it diverged.
  """

  rate: float
  forgotten: _Point | None
  late: _Point
  last: _Point
  outcome: Outcome | None


# Request -> method -> the runs of all seeds.
_Found = Mapping[str, Mapping[str, Sequence[_Run]]]


def run(
  workdir: Workdir, seeds: int
) -> Iterator[tuple[list[Claim], list[str]]]:
  """The claims, and the tables behind them."""
  recipe = Recipe(steps=_TRAINING.value, unlearn_steps=_STEPS.value)
  corpus = language_tasks.fictitious(_AUTHORS.value)
  with Session(
    workdir,
    _total(recipe, seeds),
    folder="lune",
    points=_STEPS.value // _EVERY,
    every=_EVERY,
  ) as session:
    bench = _Bench(Study(corpus, recipe, session), seeds)
    found = {
      request: {name: bench.runs(name, request) for name in _METHODS}
      for request in _REQUESTS
    }
    ranks = {
      request: {rank: bench.runs("lune", request, rank) for rank in _RANKS}
      for request in _REQUESTS
    }
    curves = bench.relearn()
    measured = [
      _generality(found),
      _against_ascent(found),
      _against_full(found),
      _costs(bench.study),
      _of_ranks(ranks),
      [("outputs without the adapters, largest change", "<=", 0,
        bench.change())],
    ]  # fmt: skip
  claims = [
    Claim("lune", f"{number}{letter}", "authors", *part)
    for number, parts in enumerate(measured, 1)
    for letter, part in zip(string.ascii_lowercase, parts, strict=False)
  ]
  lines = [
    *_table(found),
    *_rank_table(ranks),
    *_relearn_table(curves),
  ]
  yield claims, lines


class _Bench:
  """Runs methods on tasks; a model is trained once for each seed."""

  def __init__(self, study: Study, seeds: int):
    self.study, self._seeds = study, range(seeds)
    sizes = [
      language_tasks.num_known(study.corpus, _facts(study.corpus, name, 0))
      for name in _REQUESTS
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

  def runs(
    self, name: str, request: str, rank: int | None = None
  ) -> list[_Run]:
    """A method on the tasks of all seeds, at its rate."""
    rate = self._rate(name, request, rank)
    return [
      self._run(name, seed, request, rate, rank, _STEPS.value)
      for seed in self._seeds
    ]

  @functools.cache  # noqa: B019
  def _rate(self, name: str, request: str, rank: int | None) -> float:
    """The rate with the most retained where the facts are forgotten."""

    def retained(rate):
      runs = [
        self._run(name, seed, request, rate, rank, _STEPS.value // 2)
        for seed in _TUNING_SEEDS
      ]
      kept = sum(run.forgotten.retain for run in runs if run.forgotten)
      return kept, rate

    return max(_RATES.value, key=retained)

  def _run(self, name, seed, request, rate, rank, num_steps) -> _Run:
    """A method on one task, without a stop."""
    entry, task = _METHODS[name], self.task(request, seed)
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
      gone = _Point(math.nan, 0.0, 0.0, 0.0)
      return _Run(rate, None, gone, gone, None)
    points = [_Point(*row) for row in outcome.curve]
    reached = (p for p in points if p.heldout <= _FORGOTTEN)
    late = next(p for p in points if p.steps >= 2 * num_steps / 3)
    return _Run(rate, next(reached, None), late, points[-1], outcome)

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
            view=_METHODS[name].view,
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


def _retained(runs: Sequence[_Run]) -> float:
  """Mean of what is retained once the facts are forgotten; NaN if they are not.

  A method that does not forget within its steps in every seed has no value.
  """
  return float(
    np.mean([r.forgotten.retain if r.forgotten else math.nan for r in runs])
  )


def _mean(runs: Sequence[_Run], look: str, value: str) -> float:
  points = [getattr(run, look) for run in runs]
  return float(np.mean([getattr(p, value) if p else math.nan for p in points]))


def _generality(found: _Found):
  """Claim 1: phrasings that were not trained on are answered anew too."""
  for request in _REQUESTS:
    runs = found[request]["lune"]
    reached = np.mean([run.forgotten is not None for run in runs])
    yield (
      f"{request}: share of seeds in which held-out phrasings are forgotten",
      ">=", 1, float(reached),
    )  # fmt: skip
    yield (
      f"{request}: held-out phrasings given the negative answer", ">=", 0.8,
      _mean(runs, "forgotten", "replaced"),
    )  # fmt: skip


def _against_ascent(found: _Found):
  """Claim 2: negatives keep more than ascent and than one refusal."""
  for request in _REQUESTS:
    methods = found[request]
    own, ascent = methods["lune"], methods["ascent, adapters"]
    for other in ("ascent, adapters", "refusal, adapters"):
      yield (
        f"{request}: retained accuracy, LUNE less {other}", ">=", 0.1,
        _retained(own) - _retained(methods[other]),
      )  # fmt: skip
    yield (
      f"{request}: retained accuracy that ascent loses after it has forgotten",
      ">=", 0.1, _retained(ascent) - _mean(ascent, "last", "retain"),
    )  # fmt: skip
    yield (
      f"{request}: retained accuracy that LUNE loses in the last "
      f"third of {_STEPS.value} steps", "<=", 0.02,
      _mean(own, "late", "retain") - _mean(own, "last", "retain"),
    )  # fmt: skip


def _against_full(found: _Found):
  """Claim 3: adapters keep as much as fine-tuning all weights does."""
  methods = found["author"]
  yield (
    "author: retained accuracy, full fine-tuning less LUNE", "<=", 0.05,
    _retained(methods["full fine-tuning"]) - _retained(methods["lune"]),
  )  # fmt: skip


def _costs(study: Study):
  """Claim 4: numbers and bytes of what is trained, adapters over all."""
  own = study.recipe
  wide = own._replace(
    hidden_size=_WIDE,
    intermediate_size=own.intermediate_size * _WIDE // own.hidden_size,
  )
  for recipe, limit in ((own, 1 / 5), (wide, 1 / 10)):
    numbers, memory = _shares(study.corpus, recipe)
    at = f"d = {recipe.hidden_size}: adapters over all weights"
    yield f"{at}, trainable numbers", "<=", limit, numbers
    yield f"{at}, bytes of Adam's state", "<=", limit, memory


def _shares(corpus: Corpus, recipe: Recipe) -> tuple[float, float]:
  """Trainable numbers and optimiser bytes, adapters over all weights."""
  config = language_study.configure(corpus, recipe, None)
  optimizer = language_study.adam(1e-3)

  def sizes(tree):
    leaves = jax.tree.leaves(tree)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

  def shapes(key):
    tokens = np.zeros((1, 1), np.int32)
    params = transformer.model(config).init(key, tokens)
    adapters = lora.split(
      lora.attach(key, params, recipe.pattern, rank=recipe.rank)
    )[1]
    return [(tree, optimizer.init(tree)) for tree in (adapters, params)]

  (low, low_state), (full, full_state) = jax.eval_shape(
    shapes, jax.random.key(0)
  )
  return (
    optax.tree.size(low) / optax.tree.size(full),
    sizes(low_state) / sizes(full_state),
  )


def _of_ranks(ranks: Mapping[str, Mapping[int, Sequence[_Run]]]):
  """Claim 5: rank 1 is enough to forget; more rank is not more retained."""
  least = min(_RANKS)
  for request in _REQUESTS:
    of_rank = ranks[request]
    reached = np.mean([run.forgotten is not None for run in of_rank[least]])
    retained = [_retained(of_rank[rank]) for rank in _RANKS]
    yield (
      f"{request}: share of seeds forgotten at rank {least}", ">=", 1,
      float(reached),
    )  # fmt: skip
    yield (
      f"{request}: least gain in retained accuracy from a rank to the next",
      "<=", 0, float(np.min(np.diff(retained))),
    )  # fmt: skip


def _row(cells: Sequence[Any]) -> str:
  return f"| {' | '.join(map(str, cells))} |"


def _head(title: str, columns: Sequence[str]) -> list[str]:
  return [f"## {title}", "", _row(columns), f"|{'---|' * len(columns)}"]


def _spread(values: Sequence[float]) -> str:
  """Mean and standard deviation of what there is."""
  values = [value for value in values if not math.isnan(value)]
  if not values:
    return "-"
  return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _cells(runs: Sequence[_Run]) -> list[str]:
  """Columns of one method: when it has forgotten, and at the end."""
  at = [run.forgotten for run in runs if run.forgotten]
  done = [run.outcome for run in runs if run.outcome]
  return [
    f"{runs[0].rate:g}",
    f"{len(at)} of {len(runs)}",
    *(_spread([getattr(p, name) for p in at]) for name in _Point._fields),
    _spread([run.last.retain for run in runs]),
    _spread([1000 * outcome.seconds / _STEPS.value for outcome in done]),
  ]


_COLUMNS = (
  "learning rate", "forgotten in seeds", "steps", "held-out accuracy",
  "replaced", "retained", "retained after all steps", "ms a step",
)  # fmt: skip


def _table(found: _Found) -> list[str]:
  lines = []
  for request in _REQUESTS:
    lines += _head(
      f"{request}: at the first look with held-out accuracy <= {_FORGOTTEN:g}, "
      f"looked at every {_EVERY} steps; mean ± deviation over seeds",
      ["method", *_COLUMNS],
    )
    for name, runs in found[request].items():
      lines.append(_row([name, *_cells(runs)]))
    lines.append("")
  return lines


def _rank_table(ranks) -> list[str]:
  lines = []
  for request in _REQUESTS:
    lines += _head(f"{request}: LUNE by rank", ["rank", *_COLUMNS])
    for rank, runs in ranks[request].items():
      lines.append(_row([rank, *_cells(runs)]))
    lines.append("")
  return lines


def _relearn_table(curves: Mapping[str, np.ndarray]) -> list[str]:
  steps = next(iter(curves.values()))[0, :, 0].astype(int)
  lines = _head(
    "fraction: accuracy on the other half of the facts, after relearning one "
    "phrasing of half of them",
    ["method", *(f"{step} steps" for step in steps)],
  )
  for name, found in curves.items():
    lines.append(
      _row([name, *(_spread(found[:, i, 1]) for i in range(len(steps)))])
    )
  return [*lines, ""]


def _total(recipe: Recipe, seeds: int) -> int:
  """Steps that the bar counts."""
  variants = len(_REQUESTS) * (len(_METHODS) + len(_RANKS))
  tuning = variants * len(_TUNING_SEEDS) * len(_RATES.value) // 2
  trainings = len(_TUNING_SEEDS) + 2 * seeds
  stopped = 2 * seeds
  return (
    trainings * recipe.steps
    + (tuning + variants * seeds + stopped) * recipe.unlearn_steps
  )
