"""Selection is a partition, and says what is wrong with a request."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junlearn import data
from junlearn.data import select


def make(ids, num_classes=3):
  """Examples whose input and label are functions of the id."""
  ids = np.asarray(ids)
  return data.from_arrays(ids[:, None] * 0.5, ids % num_classes, ids)


def check_partition(request, examples):
  """Forget and retain together are the examples, whole rows, in order."""
  for part in (request.forget, request.retain):
    assert set(part) == set(examples)
    expected = make(part["id"])
    for key in examples:
      np.testing.assert_array_equal(part[key], expected[key])
    rows = [list(examples["id"]).index(i) for i in part["id"]]
    assert rows == sorted(rows)
  joined = np.concatenate([request.forget["id"], request.retain["id"]])
  np.testing.assert_array_equal(np.sort(joined), np.sort(examples["id"]))
  assert request.extra is None


@st.composite
def examples_and_ids(draw):
  ids = draw(st.lists(st.integers(0, 10**6), min_size=2, unique=True))
  wanted = draw(st.permutations(ids))
  return make(ids), wanted[: draw(st.integers(1, len(ids) - 1))]


@given(examples_and_ids())
@settings(deadline=None)
def test_by_id_is_a_partition(case):
  examples, ids = case
  request = select.by_id(examples, ids)
  check_partition(request, examples)
  assert set(request.forget["id"].tolist()) == set(ids)


@given(examples_and_ids(), st.floats(0.01, 0.99), st.integers(0, 2**32))
@settings(deadline=None)
def test_by_fraction_is_a_partition(case, fraction, seed):
  examples, _ = case
  n = len(examples["id"])
  if not 0 < round(fraction * n) < n:
    with pytest.raises(ValueError, match="at least one to forget"):
      select.by_fraction(examples, fraction, seed=seed)
    return
  request = select.by_fraction(examples, fraction, seed=seed)
  check_partition(request, examples)
  assert len(request.forget["id"]) == round(fraction * n)
  # Whatever the order of the rows, the same records are forgotten.
  reversed_rows = {k: v[::-1] for k, v in examples.items()}
  other = select.by_fraction(reversed_rows, fraction, seed=seed)
  assert set(other.forget["id"]) == set(request.forget["id"])


def test_by_fraction_is_uniform():
  """Each of 20 ids is forgotten in a quarter of 2,000 draws, within 5 sigma."""
  examples = make(np.arange(20))
  counts = np.zeros(20)
  for seed in range(2000):
    chosen = select.by_fraction(examples, 0.25, seed=seed).forget["id"]
    counts[chosen] += 1
  sigma = np.sqrt(2000 * 0.25 * 0.75)
  assert np.all(np.abs(counts - 500) < 5 * sigma)


def test_by_class():
  examples = make([3, 4, 5, 7, 6])
  request = select.by_class(examples, 1)
  check_partition(request, examples)
  np.testing.assert_array_equal(request.forget["id"], [4, 7])


def test_blocks():
  examples = make(np.arange(17) * 3)
  requests = select.blocks(examples, size=4, count=3, seed=0)
  assert len(requests) == 3
  forgotten = set()
  for request in requests:
    block = set(request.forget["id"].tolist())
    assert len(block) == 4 and not block & forgotten
    forgotten |= block
    left = set(examples["id"].tolist()) - forgotten
    assert set(request.retain["id"].tolist()) == left
  again = select.blocks(examples, size=4, count=3, seed=0)
  np.testing.assert_array_equal(again[2].forget["id"], requests[2].forget["id"])


def test_jax_arrays_and_nested_leaves():
  examples = {
    "id": jnp.arange(4) + 10,
    "label": jnp.array([0, 1, 0, 1]),
    "input": {"a": jnp.arange(8.0).reshape(4, 2)},
  }
  request = select.by_id(examples, jnp.array([12]))
  np.testing.assert_array_equal(request.forget["input"]["a"], [[4.0, 5.0]])
  assert isinstance(request.retain["label"], jax.Array)


def texts(authors):
  """Examples of text: author a has the facts 2 a and 2 a + 1."""
  authors = np.asarray(authors)
  return {
    "id": np.arange(len(authors), dtype=np.int32) + 100,
    "author": authors,
    "fact": 2 * authors + np.arange(len(authors)) % 2,
    "input": {"tokens": np.arange(len(authors))[:, None]},
  }


def test_by_column():
  examples = texts([4, 4, 7, 7, 9, 4])
  for column, values, rows in (
    ("author", 7, [2, 3]),
    ("author", [9, 4], [0, 1, 4, 5]),
    ("fact", np.array([9]), [1, 5]),
  ):
    request = select.by_column(examples, column, values)
    np.testing.assert_array_equal(request.forget["id"] - 100, rows)
    np.testing.assert_array_equal(request.forget["input"]["tokens"][:, 0], rows)
    others = sorted(set(range(6)) - set(rows))
    np.testing.assert_array_equal(request.retain["id"] - 100, others)


@pytest.mark.parametrize("seed", range(3))
def test_fraction_of_authors(seed):
  """A quarter of twelve authors, all rows of each, whatever their order."""
  authors = np.repeat(np.arange(12) * 3, np.arange(1, 13))
  examples = texts(np.random.default_rng(seed).permutation(authors))
  request = select.by_fraction(examples, 0.25, seed=seed, column="author")
  chosen = set(request.forget["author"].tolist())
  assert len(chosen) == 3
  assert not chosen & set(request.retain["author"].tolist())
  assert len(request.forget["id"]) == sum(a // 3 + 1 for a in chosen)
  again = select.by_fraction(texts(authors), 0.25, seed=seed, column="author")
  assert set(again.forget["author"].tolist()) == chosen
  other = select.by_fraction(examples, 0.25, seed=99, column="author")
  assert set(other.forget["author"].tolist()) != chosen


@pytest.mark.parametrize(
  "call, message",
  [
    (
      lambda e: select.by_column(e, "author", [3, 7, 8]),
      "values contains 7, 8, which no .* the author of an example: 0, 1, 3",
    ),
    (lambda e: select.by_column(e, "author", []), "values selects nothing"),
    (lambda e: select.by_column(e, "author", [0, 1, 3]), "selects all 4"),
    (lambda e: select.by_column(e, "author", [1, 1]), "contains 1 more than"),
    (lambda e: select.by_column(e, "author", 0.5), "values has dtype float64"),
    (lambda e: select.by_column(e, "book", 1), "'book' must be one of them"),
    (
      lambda e: select.by_fraction(e, 0.1, seed=0, column="author"),
      "rounds to 0 of 3 values of 'author'",
    ),
  ],
)
def test_bad_columns(call, message):
  with pytest.raises(ValueError, match=message):
    call(texts([0, 1, 1, 3]))


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda e: select.by_id(e, []), "ids selects nothing"),
    (lambda e: select.by_id(e, [0, 1, 2, 3]), "ids selects all 4 examples"),
    (lambda e: select.by_id(e, [1, 1]), "ids contains 1 more than once"),
    (
      lambda e: select.by_id(e, [1, 9, 8, 7, 6, 5, 4]),
      r"ids contains 9, 8, 7, 6, 5, \.\.\., which no example has",
    ),
    (lambda e: select.by_id(e, [0.5]), "ids has dtype float64"),
    (lambda e: select.by_class(e, 7), "label is 7, which .* one of 0, 1, 2"),
    (
      lambda e: select.by_class(e | {"label": np.ones(4, int)}, 1),
      "label selects all 4",
    ),
    (lambda e: select.by_fraction(e, 0, seed=0), r"fraction is 0; .*\(0, 1\)"),
    (lambda e: select.by_fraction(e, 1.0, seed=0), r"fraction is 1\.0"),
    (lambda e: select.by_fraction(e, np.nan, seed=0), "fraction is nan"),
    (lambda e: select.by_fraction(e, 0.1, seed=0), "rounds to 0 of 4"),
    (lambda e: select.by_fraction(e, 0.9, seed=0), "rounds to 4 of 4"),
    (lambda e: select.blocks(e, 0, 1, seed=0), "size is 0"),
    (lambda e: select.blocks(e, 1, 0, seed=0), "count is 0"),
    (lambda e: select.blocks(e, 2, 2, seed=0), "size is 2 and count is 2"),
    (lambda e: select.by_weight(e, [0, 1]), r"forget has shape \(2,\)"),
    (lambda e: select.by_weight(e, [0, 1, 2, 0]), "values 0, 1, 2"),
    (lambda e: select.by_weight(e, [0] * 4), "values 0; .* at least once"),
    (lambda e: select.by_weight(e, [1] * 4), "values 1; .* at least once"),
    (
      lambda e: select.by_id(e | {"id": np.array([1, 2, 2, 3])}, [1]),
      "examples has the id 2 more than once",
    ),
    (
      lambda e: select.by_id({"label": e["label"]}, [1]),
      r"the keys \['label'\]; 'id' must be",
    ),
    (
      lambda e: select.by_id(e | {"id": np.arange(3)}, [1]),
      r"lengths \[3, 4\]",
    ),
  ],
)
def test_bad_requests(call, message):
  with pytest.raises(ValueError, match=message):
    call(make(np.arange(4)))


def test_by_weight():
  examples = make(np.arange(5))
  request = select.by_weight(examples, np.array([1, 0, 0, 1, 0]))
  np.testing.assert_array_equal(request.forget["weight"], [1, 0, 0, 1, 0])
  np.testing.assert_array_equal(request.retain["weight"], [0, 1, 1, 0, 1])
  assert request.forget["weight"].dtype == jnp.float32
  for key in examples:
    assert request.forget[key] is request.retain[key] is examples[key]


def test_by_weight_keeps_absent_examples_absent():
  examples = make(np.arange(4)) | {"weight": np.array([1.0, 0.0, 1.0, 0.0])}
  request = select.by_weight(examples, [True, True, False, False])
  np.testing.assert_array_equal(request.forget["weight"], [1, 0, 0, 0])
  np.testing.assert_array_equal(request.retain["weight"], [0, 0, 1, 0])


def test_by_weight_under_vmap_agrees_with_by_id():
  examples = make(np.arange(6))
  masks = np.array([[1, 0, 0, 0, 1, 0], [0, 1, 1, 1, 0, 0]])

  @jax.jit
  @jax.vmap
  def sums(forget):
    request = select.by_weight(examples, forget)
    return [
      jnp.sum(part["weight"] * part["input"][:, 0])
      for part in (request.forget, request.retain)
    ]

  forgotten, retained = sums(masks)
  for i, mask in enumerate(masks):
    request = select.by_id(examples, np.flatnonzero(mask))
    np.testing.assert_allclose(forgotten[i], request.forget["input"].sum())
    np.testing.assert_allclose(retained[i], request.retain["input"].sum())
