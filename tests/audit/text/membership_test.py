"""Membership scores of texts, by hand and recomputed."""

import zlib

import numpy as np
import pytest
from sklearn import metrics

from junlearn.audit import membership as classic
from junlearn.audit.text import membership
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


def test_zlib():
  texts = ["aaaaaaaaaaaaaaaa", "a b c d e f g h", "x"]
  size = [len(zlib.compress(text.encode())) for text in texts]
  np.testing.assert_allclose(
    membership.zlib(SIX, texts), membership.loss(SIX) / size
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


def test_bad_input():
  with pytest.raises(ValueError, match="k is 0"):
    membership.min_k(SIX, k=0)
  with pytest.raises(ValueError, match="texts has 2 entries"):
    membership.zlib(SIX, ["a", "b"])
  with pytest.raises(ValueError, match="retrained is 1; it must be below 1"):
    membership.privleak(0.5, 1)
  with pytest.raises(ValueError, match="auc is 75"):
    membership.privleak(75, 0.5)
