"""Was this text trained on? Membership signals of each text, and PrivLeak.

All scores are `[n]` and speak for membership where they are large, so that
`junlearn.audit.membership.auc` and `roc` take them as they are, those of the
forgotten texts as the members', those of texts never seen as the others'. That
AUC is the one of OpenUnlearning (scores negated, holdout as label 1): 1
where the forgotten still look like members, below 0.5 where they were pushed
too far. They take `scores.without_end`.
"""

import zlib as compression
from collections.abc import Sequence

import numpy as np

from junlearn import validate
from junlearn.audit.text import memory
from junlearn.audit.text.scores import TokenScores, lengths

# sigma^2 of Min-K++ is held at or above this.
VARIANCE_FLOOR = 1e-6


def loss(scores: TokenScores) -> np.ndarray:
  """-lbar, the mean log-probability of the tokens.

  Source: Yeom et al. (arXiv 1709.01604).
  """
  return -memory.mean_nll(scores)


def zlib(scores: TokenScores, texts: Sequence[str]) -> np.ndarray:
  """-lbar / bytes of the compressed text, which discounts plain texts.

  Args:
    scores: of the answers.
    texts: the answers `[n]`.

  Raises:
    ValueError: if there are not as many texts as rows.

  Source: Carlini et al. (arXiv 2012.07805).
  """
  value = loss(scores)
  if len(texts) != len(value):
    raise ValueError(
      f"texts has {len(texts)} entries; it must have one for each of the "
      f"{len(value)} rows of scores."
    )
  return value / [len(compression.compress(text.encode())) for text in texts]


def min_k(scores: TokenScores, *, k: float = 0.4) -> np.ndarray:
  """Mean of the lowest max(1, floor(k |y|)) log-probabilities.

  Args:
    scores: of the answers.
    k: fraction of the tokens, in (0, 1].

  Raises:
    ValueError: if k is out of range.

  Source: Shi et al. (arXiv 2310.16789); k of MUSE (arXiv 2407.06460).
  """
  return _lowest(scores, scores.log_prob, k)


def min_k_plus_plus(scores: TokenScores, *, k: float = 0.4) -> np.ndarray:
  """`min_k` of (s - mu) / sigma: how the token stands among all others.

  Args and Raises: as `min_k`.

  Source: Zhang et al. (arXiv 2404.02936).
  """
  std = np.sqrt(np.maximum(np.square(scores.std), VARIANCE_FLOOR))
  return _lowest(scores, (scores.log_prob - scores.mean) / std, k)


def _lowest(scores, values, k):
  validate.fraction(k=k)
  count = np.maximum(1, (k * lengths(scores)).astype(int))
  ascending = np.sort(np.where(scores.mask, values, np.inf), axis=1)
  is_low = np.arange(values.shape[1]) < count[:, None]
  return np.sum(ascending, axis=1, where=is_low) / count


def privleak(auc: float, retrained: float = 0.5) -> float:
  """PrivLeak in percent, 100 ( (1 - auc) - (1 - auc_r) ) / (1 - auc_r).

  0 is the goal; towards -100 the forgotten still look like members, above 0
  they look less like members than to the retrained model.

  Args:
    auc: of `min_k` on forgotten against unseen texts.
    retrained: the same of the retrained model; 0.5 stands in for it.

  Raises:
    ValueError: if an AUC is not in [0, 1], or the retrained model's is 1.

  Source: MUSE (arXiv 2407.06460).
  """
  validate.within("[0, 1]", auc=auc, retrained=retrained)
  if retrained == 1:
    raise ValueError("retrained is 1; it must be below 1, or 0 divides.")
  return 100 * (retrained - auc) / (1 - retrained)
