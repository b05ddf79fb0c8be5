"""What generated texts say of the true ones: ROUGE-L, VerbMem and KnowMem.

With LCS the longest common subsequence of the words of a generated text g and
of the true one y,

    recall = |LCS| / |y|,  precision = |LCS| / |g|,  F1 = their harmonic mean.

Words are runs of a to z and 0 to 9 in lower case, as in `rouge_score`, and are
not stemmed (TOFU and OpenUnlearning stem them, MUSE's own code does not).
Texts come from `generation.greedy` and a tokenizer.

Sources: Lin, ROUGE (2004); TOFU (arXiv 2401.06121); MUSE (arXiv 2407.06460).
"""

import re
from collections.abc import Iterable, Sequence
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
  b = np.array([number[word] for word in b], int)
  best = np.zeros(len(b) + 1, int)
  for word in a:
    # Along b the best of a row never falls, so a running maximum is enough.
    matched = np.where(b == number[word], best[:-1] + 1, best[1:])
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
  spoken, true = (np.array([len(p[i]) for p in pairs]) for i in (0, 1))
  return RougeL(
    precision=common / np.maximum(spoken, 1),
    recall=common / true,
    f1=2 * common / (spoken + true),
  )


def verbmem(generated: Sequence[str], references: Sequence[str]) -> float:
  """Verbatim memorisation: mean F1 of continuations of the passages' prefixes.

  Args:
    generated: greedy continuations, of 128 tokens.
    references: the passages' true continuations, cut to 128 tokens.
  """
  return float(np.mean(rouge_l(generated, references).f1))


def knowmem(generated: Sequence[str], references: Sequence[str]) -> float:
  """Knowledge memorisation: mean F1 of answers after a few-shot prompt.

  Args:
    generated: greedy continuations of `few_shot`, of 32 tokens; each is cut
      at the first blank line or "Question".
    references: the true answers.
  """
  answers = [re.split(r"\n\s*\n|Question", text)[0] for text in generated]
  return float(np.mean(rouge_l(answers, references).f1))


def few_shot(shots: Iterable[tuple[str, str]], question: str) -> str:
  """The prompt of `knowmem`: solved questions, then the one to answer."""
  solved = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in shots)
  return f"{solved}Question: {question}\nAnswer:"
