"""New labels: what is excluded, and that the rest is uniform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from junlearn.relabel import random_labels, union

KEY = jax.random.key(2)
N = 20_000
TRUE = jnp.arange(N, dtype=jnp.int32) % 5


def test_labels_are_uniform_over_all_classes():
  labels = random_labels(KEY, TRUE, 5)
  table = np.zeros((5, 5))
  np.add.at(table, (np.asarray(TRUE), np.asarray(labels)), 1)
  assert scipy.stats.chisquare(table.ravel()).pvalue > 1e-3
  assert labels.dtype == TRUE.dtype
  assert labels.shape == TRUE.shape


@pytest.mark.parametrize("shifts", [(0,), (0, 2)])
def test_excluded_labels_are_never_drawn_and_the_rest_evenly(shifts):
  excluded = tuple((TRUE + shift) % 5 for shift in shifts)
  draw = jax.jit(random_labels, static_argnums=2)
  labels = np.asarray(draw(KEY, TRUE, 5, exclude=excluded))
  offset = (labels - np.asarray(TRUE)) % 5
  counts = np.bincount(offset, minlength=5)
  rest = [shift for shift in range(5) if shift not in shifts]
  assert not counts[list(shifts)].any()
  assert scipy.stats.chisquare(counts[rest]).pvalue > 1e-3


def test_the_same_label_may_be_excluded_twice():
  labels = random_labels(KEY, TRUE, 3, exclude=(TRUE % 3, TRUE % 3))
  assert not jnp.any(labels == TRUE % 3)


def test_one_class_left_is_certain():
  labels = random_labels(KEY, TRUE % 2, 2, exclude=(TRUE % 2,))
  np.testing.assert_array_equal(labels, 1 - TRUE % 2)


def test_labels_depend_on_the_key_and_examples_are_independent():
  labels = np.asarray(random_labels(KEY, TRUE, 5))
  np.testing.assert_array_equal(labels, random_labels(KEY, TRUE, 5))
  other = np.asarray(random_labels(jax.random.key(3), TRUE, 5))
  for pair in ((labels, other), (labels[:-1], labels[1:])):
    agreement = np.mean(pair[0] == pair[1])
    assert abs(agreement - 1 / 5) < 4 * np.sqrt(0.16 / N)


def test_too_few_classes_are_refused():
  with pytest.raises(ValueError, match=r"num_classes is 2.* at least 3"):
    random_labels(KEY, TRUE, 2, exclude=(TRUE, TRUE))


def test_union_joins_shared_keys_and_fills_in_weights():
  one = {"input": jnp.zeros((2, 3)), "id": jnp.arange(2)}
  other = {
    "input": jnp.ones((3, 3)),
    "weight": jnp.array([1.0, 0.0, 1.0]),
    "extra": jnp.ones(3),
  }
  joined = union(None, one, other, None)
  assert set(joined) == {"input", "weight"}
  np.testing.assert_array_equal(joined["weight"], [1, 1, 1, 0, 1])
  np.testing.assert_array_equal(joined["input"][:, 0], [0, 0, 1, 1, 1])
  # In the order given.
  np.testing.assert_array_equal(union(other, one)["weight"], [1, 0, 1, 1, 1])


def test_union_without_weights_adds_none():
  one = {"input": jnp.zeros(2), "id": jnp.arange(2)}
  assert set(union(one, one)) == {"input", "id"}
  np.testing.assert_array_equal(union(one)["id"], [0, 1])


def test_union_of_plain_arrays():
  joined = union(jnp.zeros(2), None, jnp.ones(1))
  np.testing.assert_array_equal(joined, [0, 0, 1])


def test_union_of_nothing_is_refused():
  with pytest.raises(ValueError, match="every part is None"):
    union(None, None)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
def test_union_keeps_the_dtype_of_the_weights(dtype):
  weight = jnp.ones(2, dtype)
  joined = union({"x": jnp.ones(2), "weight": weight}, {"x": jnp.ones(1)})
  assert joined["weight"].dtype == dtype
