"""Collected scores against a NumPy recomputation; the end token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from junlearn.audit.text import scores
from junlearn.model import from_function

VOCABULARY, LENGTH, ROWS = 7, 6, 5
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(VOCABULARY, VOCABULARY)).astype(np.float32) * 3
BIGRAM = from_function(lambda table, tokens: table[tokens])
MASK = np.array(
  [
    [0, 0, 1, 1, 1, 1],
    [0, 1, 1, 0, 0, 0],
    [0, 0, 0, 1, 1, 0],
    [0, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 1, 1],
  ],
  bool,
)
EXAMPLES = {
  "input": RNG.integers(VOCABULARY, size=(ROWS, LENGTH)).astype(np.int32),
  "mask": MASK,
  "id": np.arange(ROWS, dtype=np.int32),
}


@pytest.mark.parametrize("batch_size", [2, 64])
def test_scores_are_those_of_scipy(batch_size):
  collected = scores.collect(BIGRAM, TABLE, EXAMPLES, batch_size=batch_size)
  log_p = special.log_softmax(TABLE[EXAMPLES["input"][:, :-1]], axis=-1)
  target = EXAMPLES["input"][:, 1:]
  own = np.take_along_axis(log_p, target[..., None], -1)[..., 0]
  mean = np.sum(np.exp(log_p) * log_p, axis=-1)
  square = np.sum(np.exp(log_p) * log_p**2, axis=-1)
  assert {leaf.shape for leaf in collected} == {(ROWS, LENGTH - 1)}
  assert collected.log_prob.dtype == np.float64
  np.testing.assert_allclose(collected.log_prob, own, rtol=1e-5)
  np.testing.assert_array_equal(collected.mask, MASK[:, 1:])
  np.testing.assert_array_equal(collected.correct, log_p.argmax(-1) == target)
  np.testing.assert_allclose(collected.mean, mean, rtol=1e-5)
  np.testing.assert_allclose(
    collected.std, np.sqrt(square - mean**2), rtol=1e-4
  )


def test_half_precision_is_widened_before_the_softmax():
  half = jnp.asarray(TABLE, jnp.bfloat16)
  collected = scores.collect(BIGRAM, half, EXAMPLES)
  expected = scores.collect(BIGRAM, half.astype(jnp.float32), EXAMPLES)
  np.testing.assert_array_equal(collected.log_prob, expected.log_prob)


def test_rows_with_positions_and_segments_have_the_same_scores():
  tokens = EXAMPLES["input"]
  packed = {
    "tokens": tokens,
    "positions": np.broadcast_to(np.arange(LENGTH), tokens.shape),
    "segments": np.ones_like(tokens),
  }
  model = from_function(lambda table, inputs: table[inputs["tokens"]])
  collected = scores.collect(model, TABLE, {**EXAMPLES, "input": packed})
  expected = scores.collect(BIGRAM, TABLE, EXAMPLES)
  jax.tree.map(np.testing.assert_array_equal, collected, expected)


def test_the_end_is_the_last_token_to_predict():
  collected = scores.collect(BIGRAM, TABLE, EXAMPLES)
  cut = scores.without_end(collected)
  expected = [
    [0, 1, 1, 1, 0],
    [1, 0, 0, 0, 0],
    [0, 0, 1, 0, 0],
    [1, 1, 1, 1, 0],
    [0, 0, 0, 1, 0],
  ]
  np.testing.assert_array_equal(cut.mask, expected)
  np.testing.assert_array_equal(scores.lengths(cut), [3, 1, 1, 4, 1])
  with pytest.raises(ValueError, match="before the end token in 3 of 5"):
    scores.without_end(cut)


def test_bad_input():
  with pytest.raises(ValueError, match="examples is empty"):
    scores.collect(BIGRAM, TABLE, jax.tree.map(lambda x: x[:0], EXAMPLES))
  with pytest.raises(ValueError, match="5 of 5 answers a log-probability"):
    scores.collect(BIGRAM, TABLE * np.nan, EXAMPLES)
