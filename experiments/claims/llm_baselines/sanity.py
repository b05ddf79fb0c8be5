"""Claim 6: metrics against values worked out by hand.

The answer has 6 tokens with probabilities 1/2, 1/4, 1/2, 1/8, 1/2 and 1/2; the
arg max is right at places 1, 3, 5 and 6.
"""

import math

import numpy as np

from junlearn.audit.membership import auc
from junlearn.audit.text import membership as leaks
from junlearn.audit.text import memory, truth
from junlearn.audit.text.scores import TokenScores

_SIZES = (1, 2, 5, 50, 200, 400)
_PUBLISHED = {200: 1.94e-119, 400: 1.06e-239}


def claims() -> list:
  """Parts of the claim."""
  log_prob = -math.log(2) * np.array([[1.0, 2, 1, 3, 1, 1]])
  right = np.array([[True, False, True, False, True, True]])
  zeros = np.zeros_like(log_prob)
  scores = TokenScores(log_prob, np.ones_like(right), right, zeros, zeros)
  # Of 2 x 2 pairs of a member and another text the member's is larger in 3.
  members, others = np.array([-1.0, -3.0]), np.array([-2.0, -4.0])
  pairs = [
    (memory.extraction_strength(scores)[0], 2 / 6),
    (memory.exact_memorization(scores)[0], 4 / 6),
    (memory.probability(scores)[0], 2**-1.5),
    (leaks.loss(scores)[0], -1.5 * math.log(2)),
    # floor(0.4 * 6) = 2 tokens, those of 1/8 and 1/4.
    (leaks.min_k(scores)[0], -2.5 * math.log(2)),
    (auc(members, others), 0.75),
    (leaks.privleak(0.75), -50.0),
    (leaks.privleak(0.25, 0.75), 200.0),
  ]
  found = {
    n: truth.forget_quality(np.arange(n), np.arange(n, 2 * n)).pvalue
    for n in _SIZES
  }
  return [
    ("6a", "ES, EM, probability, loss, Min-K, AUC and PrivLeak, largest error",
     "<=", 1e-12, max(abs(measured - true) for measured, true in pairs)),
    ("6b", f"forget quality of samples of {', '.join(map(str, _SIZES))} apart, "
     "largest relative error to 2 / C(2n, n)", "<=", 1e-9,
     max(abs(found[n] / floor(n) - 1) for n in _SIZES)),
    ("6c", "the same of 200 and 400 to the published 1.94e-119 and 1.06e-239",
     "<=", 0.005,
     max(abs(found[n] / p - 1) for n, p in _PUBLISHED.items())),
  ]  # fmt: skip


def floor(n: int) -> float:
  """The least forget quality of `n` values: two samples that do not overlap."""
  return 2 / math.comb(2 * n, n)
