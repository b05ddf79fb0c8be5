"""Was this text trained on? Scores of each text, and how far they leak.

All scores are `[n]` and speak for membership where they are large, so that
`junlearn.audit.membership.auc` and `roc` take them as they are, those of the
forgotten texts as the members', those of texts never seen as the others'. That
AUC is the one of OpenUnlearning (scores turned over, holdout as label 1): 1
where the forgotten still look like members, below 0.5 where they were pushed
too far. All but the gradient norm take `scores.without_end`.
"""

import functools
import zlib as compression
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import language, tree
from junlearn import view as views
from junlearn.audit.text import memory
from junlearn.audit.text.scores import TokenScores, lengths
from junlearn.model import Model
from junlearn.view import View

# sigma^2 of Min-K++ is held at or above this.
VARIANCE_FLOOR = 1e-6

_FULL = views.full()


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


def reference(scores: TokenScores, other: TokenScores) -> np.ndarray:
  """lbar_other - lbar, how much better than another model's the loss is.

  Source: Carlini et al. (arXiv 2012.07805).
  """
  return loss(scores) - loss(other)


def min_k(scores: TokenScores, *, k: float = 0.4) -> np.ndarray:
  """Mean of the lowest max(1, floor(k |y|)) log-probabilities.

  Args:
    scores: of the answers.
    k: share of the tokens, in (0, 1].

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
  if not 0 < k <= 1:
    raise ValueError(f"k is {k}; it must be in (0, 1].")
  count = np.maximum(1, (k * lengths(scores)).astype(int))
  ascending = np.sort(np.where(scores.mask, values, np.inf), axis=1)
  is_low = np.arange(values.shape[1]) < count[:, None]
  return np.sum(ascending, axis=1, where=is_low) / count


@functools.lru_cache(maxsize=64)
def _gradient_norms(model: Model, view: View):
  output_loss = language.cross_entropy(model, language.mean_nll)

  @jax.jit
  def norms(params, examples):
    free, fixed = view.split(params)

    def one(example):
      row = jax.tree.map(lambda leaf: leaf[None], example)

      def objective(free):
        return jnp.sum(output_loss(view.merge(free, fixed), row)[0])

      each = [
        jnp.linalg.norm(leaf.ravel())
        for leaf in jax.tree.leaves(jax.grad(objective)(free))
      ]
      return jnp.mean(jnp.stack(each))

    return jax.lax.map(one, examples)

  return norms


def gradient_norm(
  model: Model, params: Any, examples: Any, *, view: View = _FULL
) -> np.ndarray:
  """Minus the mean over parameter tensors of |grad lbar|_2; one row at a time.

  Layers stacked for a scan count as one tensor; unstack them for the published
  number. Give the examples `scores.drop_end` of their mask, as other attacks
  do.

  Args:
    model: of text, in evaluation mode.
    params: its params.
    examples: `n` examples of text.
    view: the leaves that count.

  Source: Wang et al. (arXiv 2402.17012).
  """
  needed = {name: examples[name] for name in ("input", "mask")}
  if tree.size(needed) == 0:
    raise ValueError("gradient_norm: examples is empty; one is needed.")
  return -np.asarray(_gradient_norms(model, view)(params, needed), np.float64)


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
  _check(auc, retrained)
  if retrained == 1:
    raise ValueError("retrained is 1, of which PrivLeak would be a share of 0.")
  return 100 * (retrained - auc) / (1 - retrained)


def closeness(auc: float, retrained: float) -> float:
  """1 - |auc - auc_r| / max(auc_r, 1 - auc_r), in [0, 1]; 1 is retraining.

  `truth.model_utility` of those of several attacks is a privacy score. The
  scale is this library's: it gives 0 to the AUC furthest from auc_r.

  Raises:
    ValueError: if an AUC is not in [0, 1].
  """
  _check(auc, retrained)
  return 1 - abs(auc - retrained) / max(retrained, 1 - retrained)


def _check(auc, retrained):
  for name, value in (("auc", auc), ("retrained", retrained)):
    if not 0 <= value <= 1:
      raise ValueError(f"{name} is {value}; it must be in [0, 1].")
