"""How much of the true texts is in generated ones: ROUGE-L.

With LCS the longest common subsequence of the words of a generated text g and
of the true one y,

    recall = |LCS| / |y|,  precision = |LCS| / |g|,  F1 = their harmonic mean.

Words are runs of a to z and 0 to 9 in lower case, as in `rouge_score`, and are
not stemmed (TOFU and OpenUnlearning stem them, MUSE's own code does not).
Texts come from `generation.greedy` and a tokenizer.

Sources: Lin, ROUGE (2004); TOFU (arXiv 2401.06121).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class RougeL(NamedTuple):
  """Of each pair of texts, `[n]` in [0, 1]."""

  precision: np.ndarray
  recall: np.ndarray
  f1: np.ndarray


def words(text: str) -> list[str]:
  """The words that are compared."""
  return re.findall("[a-z0-9]+", text.lower())


def lcs(a: Sequence[str], b: Sequence[str]) -> int:
  """Length of the longest common subsequence; time |a| |b|."""
  number = {word: index for index, word in enumerate({*a, *b})}
  columns = np.array([number[word] for word in b], int)
  best = np.zeros(len(b) + 1, int)
  for word in a:
    # Along b the best of a row never falls, so a running maximum is enough.
    matched = np.where(columns == number[word], best[:-1] + 1, best[1:])
    best[1:] = np.maximum.accumulate(matched)
  return int(best[-1])


def rouge_l(generated: Sequence[str], references: Sequence[str]) -> RougeL:
  """ROUGE-L of each generated text and the true one beside it.

  A generated text without words gets 0.

  Raises:
    ValueError: if the numbers differ, or a reference has no word.
  """
  if len(generated) != len(references) or not references:
    raise ValueError(
      f"generated has {len(generated)} texts and references "
      f"{len(references)}; they must have the same number, at least 1."
    )
  pairs = [
    (words(a), words(b)) for a, b in zip(generated, references, strict=True)
  ]
  empty = [text for text in references if not words(text)]
  if empty:
    raise ValueError(
      f"references has {len(empty)} texts without a word of a to z and 0 to 9, "
      f"such as {empty[0]!r}; each needs one."
    )
  common = np.array([lcs(a, b) for a, b in pairs])
  generated_size, true_size = (
    np.array([len(pair[side]) for pair in pairs]) for side in (0, 1)
  )
  return RougeL(
    precision=common / np.maximum(generated_size, 1),
    recall=common / true_size,
    f1=2 * common / (generated_size + true_size),
  )
