"""RMIA: robust membership inference from a few reference models.

    LR(x) = s_target(x) / q(x)
    score(x) = fraction over z != x of [ LR(x) / LR(z) > gamma ]

The signal s is a probability such as `signals.taylor_softmargin` or
`signals.confidence`, q(x) is its mean over reference models, and z runs over
all examples given (members and non-members of the target alike). Give forget,
retain and test together, and compare the scores of forget with those of test:
`membership.roc(scores[forget], scores[test], seed=...)`.

The score never decreases in LR(x), so gamma cannot change the ranking: it only
decides which examples are tied, at 0 for a large gamma, at 1 for a small one.

Source: Zarifzadeh et al. (arXiv 2312.03262).
"""

import numpy as np
from numpy.typing import ArrayLike

from junlearn import validate


def online(
  target: ArrayLike, references: ArrayLike, *, gamma: float = 2.0
) -> np.ndarray:
  """RMIA scores where the references include models trained on x.

      q(x) = mean over ALL reference models of s(x)

  That mean is over half IN and half OUT models if the references were trained
  by `balanced_membership`.

  Args:
    target: signal of the attacked model `[n]`, >= 0, n >= 2.
    references: signal of the reference models `[models, n]`, >= 0, with a
      positive mean for every example.
    gamma: how much likelier x must be than z, > 0. 2 goes with the Taylor
      signal (AMUN's released code).

  Returns:
    `[n]` in [0, 1]; larger for members. O(n log n) time, O(n) extra memory.

  Raises:
    ValueError: if an argument is outside its range.
  """
  attacked, others = _signals(target, references)
  return _dominated(attacked, np.mean(others, axis=0), gamma)


def balanced_membership(seed: int, models: int, n: int) -> np.ndarray:
  """Random training sets of reference models, balanced in both directions.

  Every model is trained on exactly n/2 examples, so that all share one shape
  and one compiled program, and every example is IN for exactly models/2
  models. Models 2k and 2k + 1 split the examples between them; different pairs
  are independent, hence so are the IN models of an example, and the OUT ones.

  Args:
    seed: of NumPy's default generator.
    models: even, at least 2.
    n: number of examples, even, at least 2. Leave one example out of an odd
      number.

  Returns:
    Bool `[models, n]`, true where the model is trained on the example.

  Raises:
    ValueError: if `models` or `n` is odd or below 2.
  """
  for name, value in (("models", models), ("n", n)):
    if value < 2 or value % 2:
      raise ValueError(f"{name} is {value}; it must be even and at least 2.")
  half = np.tile(np.arange(n) < n // 2, (models // 2, 1))
  first = np.random.default_rng(seed).permuted(half, axis=1)
  return np.stack([first, ~first], axis=1).reshape(models, n)


def _dominated(target, q, gamma):
  """Fraction of the other examples whose likelihood ratio x's exceeds."""
  validate.positive(gamma=gamma)
  if not q.all():
    raise ValueError(
      f"references are 0 in all models for {np.sum(q == 0)} examples; their "
      "mean must be positive: use a signal that does not underflow."
    )
  ratio = target / q
  bound = ratio / gamma
  count = np.searchsorted(np.sort(ratio), bound, side="left")
  # x may count itself only where gamma < 1.
  return (count - (ratio < bound)) / (ratio.size - 1)


def _signals(target, references):
  target = np.asarray(target, np.float64)
  references = np.asarray(references, np.float64)
  if target.ndim != 1 or target.size < 2:
    raise ValueError(
      f"target has shape {target.shape}; it must be [n] with n >= 2."
    )
  if references.ndim != 2 or references.shape != (
    max(references.shape[0], 1),
    target.size,
  ):
    raise ValueError(
      f"references has shape {references.shape}; it must be "
      f"[models, {target.size}] with at least one model."
    )
  for name, values in (("target", target), ("references", references)):
    if not (np.isfinite(values) & (values >= 0)).all():
      raise ValueError(
        f"{name} has NaN, infinite or negative entries; a signal must be "
        "finite and at least 0."
      )
  return target, references
