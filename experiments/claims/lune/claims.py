"""Claims of LUNE (arXiv 2512.07375): facts overwritten by negative examples.

Fictitious authors; requests for one author and for a tenth of them; methods at
matched forgetting, see `lune_runs`. Numbers are means over seeds.
"""

import math
import string
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
import optax
from absl import flags

from experiments.claims.lune import tables
from experiments.claims.lune.runs import (
  EVERY,
  METHODS,
  REQUESTS,
  TUNING_SEEDS,
  Bench,
  Found,
  Run,
)
from experiments.language import study as language_study
from experiments.language import tasks as language_tasks
from experiments.language.study import Recipe, Study
from experiments.language.tasks import Corpus
from experiments.run.claim import Claim
from experiments.run.session import Session
from experiments.run.workdir import Workdir
from junlearn.nn.adapters import lora
from junlearn.nn.text import transformer

_RANKS = (1, 2, 4, 8, 16)
_WIDE = 256  # of the decoder on which costs are compared too

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
    points=_STEPS.value // EVERY,
    every=EVERY,
  ) as session:
    bench = Bench(Study(corpus, recipe, session), seeds, _RATES.value)
    found = {
      request: {name: bench.runs(name, request) for name in METHODS}
      for request in REQUESTS
    }
    ranks = {
      request: {rank: bench.runs("lune", request, rank) for rank in _RANKS}
      for request in REQUESTS
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
    *tables.methods(found),
    *tables.ranks(ranks),
    *tables.relearning(curves),
  ]
  yield claims, lines


def _retained(runs: Sequence[Run]) -> float:
  """Mean of what is retained once the facts are forgotten; NaN if they are not.

  A method that does not forget within its steps in every seed has no value.
  """
  return float(
    np.mean([r.forgotten.retain if r.forgotten else math.nan for r in runs])
  )


def _mean(runs: Sequence[Run], look: str, value: str) -> float:
  points = [getattr(run, look) for run in runs]
  return float(np.mean([getattr(p, value) if p else math.nan for p in points]))


def _generality(found: Found):
  """Claim 1: phrasings that were not trained on are answered anew too."""
  for request in REQUESTS:
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


def _against_ascent(found: Found):
  """Claim 2: negatives keep more than ascent and than one refusal."""
  for request in REQUESTS:
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


def _against_full(found: Found):
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


def _of_ranks(ranks: Mapping[str, Mapping[int, Sequence[Run]]]):
  """Claim 5: rank 1 is enough to forget; more rank is not more retained."""
  least = min(_RANKS)
  for request in REQUESTS:
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


def _total(recipe: Recipe, seeds: int) -> int:
  """Steps that the bar counts."""
  variants = len(REQUESTS) * (len(METHODS) + len(_RANKS))
  tuning = variants * len(TUNING_SEEDS) * len(_RATES.value) // 2
  trainings = len(TUNING_SEEDS) + 2 * seeds
  stopped = 2 * seeds
  return (
    trainings * recipe.steps
    + (tuning + variants * seeds + stopped) * recipe.unlearn_steps
  )
