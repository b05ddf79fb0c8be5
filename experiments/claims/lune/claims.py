"""Claims of LUNE (arXiv 2512.07375): facts overwritten by negative examples.

Fictitious authors; requests for one author and for a tenth of them; methods at
matched forgetting, see `runs`. Numbers are means over seeds.
"""

import math
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.claims.lune import tables
from experiments.claims.lune.runs import (
  EVERY,
  METHODS,
  REQUESTS,
  Bench,
  Found,
  Run,
)
from experiments.language import corpora, transforms
from experiments.language.corpora import Corpus
from experiments.language.recipe import Recipe
from experiments.language.study import Study
from experiments.run.claim import Claim
from experiments.run.session import Session
from experiments.run.workdir import Workdir
from junlearn.nn.adapters import lora
from junlearn.nn.text import transformer

_RANKS = (1, 2, 4, 8, 16)
_WIDE = 256  # of the decoder on which costs are compared too

_AUTHORS = flags.DEFINE_integer(
  "lune_authors", 60, "lune: authors that the models know.", lower_bound=10
)
_TRAINING = flags.DEFINE_integer(
  "lune_training_steps",
  Recipe().steps,
  "lune: steps of training.",
  lower_bound=1,
)
_STEPS = flags.DEFINE_integer(
  "lune_steps", 240, "lune: steps of each method.", lower_bound=8
)
_RATES = flags.DEFINE_multi_float(
  "lune_rates", [1e-4, 3e-4, 1e-3, 3e-3], "lune: learning rates to choose from."
)


def run(
  workdir: Workdir, seeds: int
) -> Iterator[tuple[list[Claim], list[str]]]:
  """The claims, and the tables behind them."""
  recipe = Recipe(steps=_TRAINING.value, unlearn_steps=_STEPS.value)
  study = Study(corpora.fictitious(_AUTHORS.value), recipe)
  points = _STEPS.value // EVERY
  with Session(
    workdir, folder="lune", points=points, every=EVERY
  ) as study.session:
    bench = Bench(study, seeds, _RATES.value)
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
      _costs(study),
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


def _mean(runs: Sequence[Run], point: str, value: str) -> float:
  points = [getattr(run, point) for run in runs]
  return float(np.mean([getattr(p, value) if p else math.nan for p in points]))


def _generality(found: Found):
  """Claim 1: paraphrases that were not trained on are answered anew too."""
  for request in REQUESTS:
    runs = found[request]["lune"]
    reached = np.mean([run.forgotten is not None for run in runs])
    yield (
      f"{request}: fraction of seeds that forget held-out paraphrases",
      ">=", 1, float(reached),
    )  # fmt: skip
    yield (
      f"{request}: held-out paraphrases given the negative answer", ">=", 0.8,
      _mean(runs, "forgotten", "replaced"),
    )  # fmt: skip


def _against_ascent(found: Found):
  """Claim 2: negatives keep more than ascent and than one refusal."""
  for request in REQUESTS:
    methods = found[request]
    lune, ascent = methods["lune"], methods["ascent, adapters"]
    for other in ("ascent, adapters", "refusal, adapters"):
      yield (
        f"{request}: retained accuracy, LUNE less {other}", ">=", 0.1,
        _retained(lune) - _retained(methods[other]),
      )  # fmt: skip
    yield (
      f"{request}: retained accuracy that ascent loses after it has forgotten",
      ">=", 0.1, _retained(ascent) - _mean(ascent, "last", "retain"),
    )  # fmt: skip
    yield (
      f"{request}: retained accuracy that LUNE loses in the last "
      f"third of {_STEPS.value} steps", "<=", 0.02,
      _mean(lune, "late", "retain") - _mean(lune, "last", "retain"),
    )  # fmt: skip


def _against_full(found: Found):
  """Claim 3: adapters keep as much as fine-tuning all weights does."""
  methods = found["author"]
  yield (
    "author: retained accuracy, full fine-tuning less LUNE", "<=", 0.05,
    _retained(methods["full fine-tuning"]) - _retained(methods["lune"]),
  )  # fmt: skip


def _costs(study: Study):
  """Claim 4: size and bytes of what is trained, adapters over all."""
  small = study.recipe
  wide = small._replace(
    hidden_size=_WIDE,
    intermediate_size=small.intermediate_size * _WIDE // small.hidden_size,
  )
  for recipe, limit in ((small, 1 / 5), (wide, 1 / 10)):
    parameters, memory = _fractions(study.corpus, recipe)
    at = f"d = {recipe.hidden_size}: adapters over all weights"
    yield f"{at}, trainable parameters", "<=", limit, parameters
    yield f"{at}, bytes of Adam's state", "<=", limit, memory


def _fractions(corpus: Corpus, recipe: Recipe) -> tuple[float, float]:
  """Trainable parameters and optimizer bytes, adapters over all weights."""
  config = transforms.configure(corpus, recipe, None)
  optimizer = transforms.adam(1e-3)

  def shapes(key):
    tokens = np.zeros((1, 1), np.int32)
    params = transformer.model(config).init(key, tokens)
    _, adapters = lora.split(recipe.adapters.init(key, params))
    return [(tree, optimizer.init(tree)) for tree in (adapters, params)]

  (low, low_state), (full, full_state) = jax.eval_shape(
    shapes, jax.random.key(0)
  )
  return _size(low) / _size(full), _bytes(low_state) / _bytes(full_state)


def _size(shapes: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _bytes(shapes: Any) -> int:
  leaves = jax.tree.leaves(shapes)
  return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _of_ranks(ranks: Mapping[str, Mapping[int, Sequence[Run]]]):
  """Claim 5: rank 1 is enough to forget; more rank is not more retained."""
  least = min(_RANKS)
  for request in REQUESTS:
    of_rank = ranks[request]
    reached = np.mean([run.forgotten is not None for run in of_rank[least]])
    retained = [_retained(of_rank[rank]) for rank in _RANKS]
    yield (
      f"{request}: fraction of seeds forgotten at rank {least}", ">=", 1,
      float(reached),
    )  # fmt: skip
    yield (
      f"{request}: least gain in retained accuracy from a rank to the next",
      "<=", 0, float(np.min(np.diff(retained))),
    )  # fmt: skip
