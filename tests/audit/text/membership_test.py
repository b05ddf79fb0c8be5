"""Membership scores of texts, by hand and recomputed."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from junlearn import view
from junlearn.audit import membership as classic
from junlearn.audit.text import membership
from junlearn.model import from_function
from tests.audit.text import stored
from tests.audit.text.stored import HALF, QUARTER

SIX = stored.six_tokens()


def test_min_k_by_hand():
  # floor(0.4 * 6) = 2 of the six tokens, the two quarters; floor(0.4) = 0 of
  # the single token, but at least one counts.
  np.testing.assert_allclose(membership.min_k(SIX), [QUARTER] * 3)
  # floor(0.7 * 6) = 4: the quarters and two of the halves.
  np.testing.assert_allclose(
    membership.min_k(SIX, k=0.7)[0], (2 * QUARTER + 2 * HALF) / 4
  )
  np.testing.assert_allclose(membership.min_k(SIX, k=1), membership.loss(SIX))


def test_min_k_plus_plus_by_hand():
  mean = np.log([1, 1 / 4, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 1])
  std = [1, 1, 1, 0.5, 1, 0.1, 1, 1]
  scores = SIX._replace(
    mean=np.broadcast_to(mean, (3, 8)), std=np.broadcast_to(std, (3, 8))
  )
  # In units of log 2 the six stand at 1, 0, (-2 + 1) / 0.5, 0, 0, -1.
  np.testing.assert_allclose(
    membership.min_k_plus_plus(scores)[0], (-2 - 1) * np.log(2) / 2
  )
  # A sure prediction has sigma = 0, held at 0.001.
  sure = scores._replace(std=np.zeros((3, 8)))
  np.testing.assert_allclose(
    membership.min_k_plus_plus(sure)[2], -np.log(2) / 1e-3
  )


@pytest.mark.parametrize("k", [0.2, 0.4, 1.0])
def test_stored_scores_recomputed_row_by_row(k):
  scores = stored.random_scores(0)
  each = [stored.answers(scores, name) for name in ("log_prob", "mean", "std")]

  def lowest(values):
    return np.sort(values)[: max(1, int(k * len(values)))].mean()

  np.testing.assert_allclose(
    membership.min_k(scores, k=k), [lowest(s) for s in each[0]]
  )
  np.testing.assert_allclose(
    membership.min_k_plus_plus(scores, k=k),
    [
      lowest((s - mu) / np.sqrt(np.maximum(sigma**2, 1e-6)))
      for s, mu, sigma in zip(*each, strict=True)
    ],
  )
  np.testing.assert_allclose(
    membership.loss(scores), [s.mean() for s in each[0]]
  )


def test_zlib_and_reference():
  texts = ["aaaaaaaaaaaaaaaa", "a b c d e f g h", "x"]
  size = [len(zlib.compress(text.encode())) for text in texts]
  np.testing.assert_allclose(
    membership.zlib(SIX, texts), membership.loss(SIX) / size
  )
  easier = SIX._replace(log_prob=SIX.log_prob / 2)
  np.testing.assert_allclose(
    membership.reference(SIX, easier), membership.loss(SIX) / 2
  )


def test_gradient_norm_is_that_of_single_rows():
  """A bigram model, whose gradient is `softmax - one-hot` in closed form."""
  rng = np.random.default_rng(0)
  vocabulary, n, length = 5, 3, 6
  table = rng.normal(size=(vocabulary, vocabulary)).astype(np.float32)
  bias = rng.normal(size=vocabulary).astype(np.float32)
  model = from_function(lambda p, tokens: p["table"][tokens] + p["bias"])
  tokens = rng.integers(vocabulary, size=(n, length)).astype(np.int32)
  mask = np.array([[0, 0, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]])
  examples = {"input": tokens, "mask": mask.astype(bool), "id": np.arange(n)}
  params = {"table": jnp.asarray(table), "bias": jnp.asarray(bias)}
  expected, of_bias = [], []
  for row, marked in zip(tokens, mask, strict=True):
    gradient = np.zeros((vocabulary, vocabulary))
    for t in np.flatnonzero(marked):
      p = np.exp(table[row[t - 1]] + bias)
      gradient[row[t - 1]] += p / p.sum() - np.eye(vocabulary)[row[t]]
    gradient /= marked.sum()
    of_bias.append(np.linalg.norm(gradient.sum(axis=0)))
    expected.append((np.linalg.norm(gradient) + of_bias[-1]) / 2)
  score = membership.gradient_norm(model, params, examples)
  np.testing.assert_allclose(score, -np.array(expected), rtol=1e-5)
  score = membership.gradient_norm(
    model, params, examples, view=view.only("bias")
  )
  np.testing.assert_allclose(score, -np.array(of_bias), rtol=1e-5)
  with pytest.raises(ValueError, match="examples is empty"):
    membership.gradient_norm(
      model, params, jax.tree.map(lambda x: x[:0], examples)
    )


def test_auc_is_sklearns_with_the_holdout_as_label_one():
  forget, holdout = stored.random_scores(0), stored.random_scores(1, n=30)
  for score in (membership.min_k, membership.loss):
    forget_score, holdout_score = score(forget), score(holdout)
    # Published scores speak against membership.
    expected = metrics.roc_auc_score(
      [0] * 40 + [1] * 30, -np.concatenate([forget_score, holdout_score])
    )
    auc = classic.auc(forget_score, holdout_score)
    assert auc == pytest.approx(expected)


def test_privleak_by_hand():
  # AUC 0.9 against 0.6: 100 (0.1 - 0.4) / 0.4.
  assert membership.privleak(0.9, 0.6) == pytest.approx(-75)
  assert membership.privleak(1.0) == -100
  assert membership.privleak(0.25) == 50
  assert membership.privleak(0.3, 0.3) == 0


def test_closeness_by_hand():
  assert membership.closeness(0.9, 0.6) == pytest.approx(0.5)
  assert membership.closeness(0.4, 0.4) == 1
  assert membership.closeness(1, 0.4) == pytest.approx(0)
  assert membership.closeness(0, 0.4) == pytest.approx(1 / 3)


def test_bad_input():
  with pytest.raises(ValueError, match="k is 0"):
    membership.min_k(SIX, k=0)
  with pytest.raises(ValueError, match="texts has 2 entries"):
    membership.zlib(SIX, ["a", "b"])
  with pytest.raises(ValueError, match="retrained is 1, of which"):
    membership.privleak(0.5, 1)
  with pytest.raises(ValueError, match="auc is 75"):
    membership.closeness(75, 0.5)
