"""Cached greedy decoding against decoding that reads everything again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.audit import generation
from junlearn.language import Decoder

VOCABULARY = 11
EOS = 1


def running_sum():
  """Says `weight` times the sum of all that it read, modulo the vocabulary.

  What lies in other segments than the row's last is not read.
  """

  def init(params, n, length):
    del params
    return jnp.zeros((n, 1), jnp.int32), jnp.zeros((n, length), jnp.int32)

  def step(params, inputs, cache):
    total, seen = cache
    new = jnp.where(inputs["segments"] > 0, inputs["tokens"], 0)
    sums = total + jnp.cumsum(new, axis=1)
    said = (params * sums + inputs["positions"]) % VOCABULARY
    return jax.nn.one_hot(said, VOCABULARY), (sums[:, -1:], seen)

  return Decoder(init, step)


DECODER = running_sum()


def prompts(rows):
  """Lists of tokens as left-padded prompts."""
  length = max(map(len, rows))
  padded = [[0] * (length - len(row)) + list(row) for row in rows]
  own = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
  positions = [
    [0] * (length - len(row)) + list(range(len(row))) for row in rows
  ]
  return {
    "tokens": np.array(padded, np.int32),
    "positions": np.array(positions, np.int32),
    "segments": np.array(own, np.int32),
  }


def by_hand(row, num_tokens, weight=3):
  """The running sum's answer in plain Python."""
  read, said = list(row), []
  while len(said) < num_tokens and EOS not in said:
    said.append((weight * sum(read) + len(read) - 1) % VOCABULARY)
    read.append(said[-1])
  return said + [EOS] * (num_tokens - len(said))


ROWS = [
  [int(token) for token in np.random.default_rng(seed).integers(2, 11, size)]
  for seed, size in enumerate([3, 1, 5, 2, 4, 4, 1])
]


@pytest.mark.parametrize("batch_size", [2, 64])
def test_rows_go_on_from_their_own_prompts_until_the_end(batch_size):
  said = generation.greedy(
    DECODER,
    jnp.int32(3),
    prompts(ROWS),
    num_tokens=12,
    eos=EOS,
    batch_size=batch_size,
  )
  assert said.dtype == np.int32
  expected = np.array([by_hand(row, 12) for row in ROWS])
  np.testing.assert_array_equal(said, expected)
  ended = expected == EOS
  assert ended.any()
  assert not ended.all()
