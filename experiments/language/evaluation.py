"""Records that a model is asked at once, and how well it answers each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.language.corpora import Corpus
from experiments.language.tasks import Task
from junlearn.audit.text import memory, scores
from junlearn.audit.text.scores import TokenScores
from junlearn.data.text.encoding import QA
from junlearn.model import Model

_BATCH = 256
_TRACKED = 100  # records of each part that are asked along a training


class EvaluationBatch(NamedTuple):
  """Records to ask, as one array.

  Attributes:
    examples: of all parts.
    rows: of each part.
    graded: as of `Corpus`.
  """

  examples: dict[str, np.ndarray]
  rows: dict[str, slice]
  graded: bool


def batch(
  corpus: Corpus,
  parts: Mapping[str, Sequence[QA]],
  *,
  rows: int | None = None,
) -> EvaluationBatch:
  """The records of the parts, with absent ones up to so many rows."""
  qas = [qa for part in parts.values() for qa in part]
  ends = np.cumsum([len(part) for part in parts.values()]).tolist()
  slices = map(slice, [0, *ends[:-1]], ends)
  examples = corpus.encode(qas, rows=rows or len(qas))
  return EvaluationBatch(
    examples, dict(zip(parts, slices, strict=True)), corpus.graded
  )


def small_batch(
  corpus: Corpus, parts: Mapping[str, Sequence[QA]]
) -> EvaluationBatch:
  """The first records of each part, in as many rows for every task."""
  first = {name: part[:_TRACKED] for name, part in parts.items()}
  return batch(corpus, first, rows=_TRACKED * len(parts))


def accuracies(
  model: Model, params: Any, asked: EvaluationBatch
) -> dict[str, float]:
  """How much greedy decoding gives of the answers, by part."""
  found = scores.collect(model, params, asked.examples, batch_size=_BATCH)
  right = accuracy(found, graded=asked.graded)
  return {name: float(right[rows].mean()) for name, rows in asked.rows.items()}


def token_scores(
  corpus: Corpus, model: Model, params: Any, task: Task
) -> dict[str, TokenScores]:
  """Scores of all tokens of all parts of a task."""
  asked = batch(corpus, task.parts)
  found = scores.collect(model, params, asked.examples, batch_size=_BATCH)
  return {
    name: TokenScores(*(leaf[rows] for leaf in found))
    for name, rows in asked.rows.items()
  }


def accuracy(found: TokenScores, *, graded: bool) -> np.ndarray:
  """Whether greedy decoding gives each answer, or which fraction of it.

  A token counts where it is the likeliest one after those before it. A whole
  answer ends; the fraction leaves its end out.
  """
  if graded:
    return memory.exact_memorization(scores.without_end(found))
  return np.all(found.correct | ~found.mask, axis=1)
