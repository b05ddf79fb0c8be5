"""The table of row numbers: permutations, absence, determinism."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junlearn.batch import indices

KEY = jax.random.key(7)


def rounds(table, n):
  """The whole rounds of `n` draws in a table."""
  flat = np.asarray(table).ravel()
  return flat[: flat.size // n * n].reshape(-1, n)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
  ("n", "num_steps", "batch_size"),
  [(6, 4, 3), (5, 7, 3), (3, 2, 8), (1, 3, 2), (4, 0, 2)],
)
def test_every_epoch_is_a_permutation(n, num_steps, batch_size, seed):
  table = indices(
    jax.random.key(seed),
    np.zeros((n, 2)),
    num_steps=num_steps,
    batch_size=batch_size,
  )
  assert table.shape == (num_steps, batch_size)
  assert jnp.issubdtype(table.dtype, jnp.integer)
  for epoch in rounds(table, n):
    assert sorted(epoch) == list(range(n))
  rest = np.asarray(table).ravel()[num_steps * batch_size // n * n :]
  assert len(set(rest)) == rest.size  # a partial epoch repeats nothing


@given(
  weight=st.lists(st.integers(0, 1), min_size=7, max_size=7).filter(any),
  seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=30)
def test_absent_rows_are_never_drawn_and_present_ones_evenly(weight, seed):
  examples = {"weight": jnp.array(weight, jnp.float32)}
  table = indices(jax.random.key(seed), examples, num_steps=6, batch_size=7)
  present = {i for i, w in enumerate(weight) if w}
  least, most = 7 // len(present), -(-7 // len(present))
  for draws in rounds(table, 7):
    counts = collections.Counter(draws.tolist())
    assert set(counts) == present
    assert set(counts.values()) <= {least, most}


def test_weights_of_one_change_nothing():
  plain = {"input": jnp.zeros((5, 2))}
  weighted = {**plain, "weight": jnp.ones(5)}
  kwargs = {"num_steps": 4, "batch_size": 3}
  np.testing.assert_array_equal(
    indices(KEY, plain, **kwargs), indices(KEY, weighted, **kwargs)
  )


def test_orders_are_uniform():
  # All 6 orders of 3 rows, 6,000 epochs: within four standard errors.
  table = indices(KEY, np.zeros(3), num_steps=6000, batch_size=3)
  counts = collections.Counter(map(tuple, np.asarray(table).tolist()))
  assert len(counts) == 6
  deviation = np.sqrt(6000 * (1 / 6) * (5 / 6))
  assert max(abs(c - 1000) for c in counts.values()) < 4 * deviation


def test_the_same_key_gives_the_same_table_and_another_key_another():
  examples = np.zeros((20, 1))
  kwargs = {"num_steps": 3, "batch_size": 20}
  table = indices(KEY, examples, **kwargs)
  np.testing.assert_array_equal(table, indices(KEY, examples, **kwargs))
  jitted = jax.jit(lambda key: indices(key, examples, **kwargs))
  np.testing.assert_array_equal(table, jitted(KEY))
  other = indices(jax.random.key(8), examples, **kwargs)
  assert not np.array_equal(table, other)
  assert not np.array_equal(table[0], table[1])  # epochs differ


def test_mapping_over_weights_gives_each_member_its_own_table():
  weights = jnp.array([[1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1.0]])
  one = jax.jit(
    lambda weight: indices(KEY, {"weight": weight}, num_steps=5, batch_size=2)
  )
  many = jax.vmap(one)(weights)
  for member, weight in zip(many, weights, strict=True):
    np.testing.assert_array_equal(member, one(weight))
    assert np.all(np.asarray(weight)[np.asarray(member)] == 1)


def test_nobody_present_still_gives_valid_row_numbers():
  table = indices(KEY, {"weight": jnp.zeros(4)}, num_steps=3, batch_size=4)
  assert table.min() >= 0
  assert table.max() < 4


def test_no_examples_at_all_are_named():
  with pytest.raises(ValueError, match="examples"):
    indices(KEY, np.zeros((0, 2)), num_steps=1, batch_size=1)
