"""Dividing, padding and deleting: every example is kept track of."""

import itertools

import numpy as np
import pytest

from junlearn.clients import data

N = 53
RNG = np.random.default_rng(0)
EXAMPLES = {
  "input": RNG.normal(size=(N, 2)).astype(np.float32),
  "label": RNG.integers(0, 4, N),
  "id": RNG.permutation(1000)[:N],
}


def present(examples):
  """Rows with weight 1, as `id: (input, label)`."""
  rows = np.argwhere(np.asarray(examples["weight"]) > 0)
  return {
    int(examples["id"][i, j]): (
      examples["input"][i, j].tolist(),
      int(examples["label"][i, j]),
    )
    for i, j in rows
  }


ALL = {
  int(EXAMPLES["id"][i]): (
    EXAMPLES["input"][i].tolist(),
    int(EXAMPLES["label"][i]),
  )
  for i in range(N)
}


@pytest.mark.parametrize("how", ["iid", "sorted", "dirichlet"])
@pytest.mark.parametrize("num_clients", [1, 4, 7])
def test_stacked_shards_are_a_partition(how, num_clients):
  shards = data.partition(EXAMPLES, num_clients, how=how, seed=3)
  stacked = data.stack(shards)
  assert stacked["weight"].shape[0] == num_clients
  assert stacked["weight"].sum() == N
  assert present(stacked) == ALL
  absent = stacked["weight"] == 0
  assert (stacked["id"][absent] == -1).all()
  assert (stacked["input"][absent] == 0).all()
  for name in EXAMPLES:
    assert stacked[name].dtype == EXAMPLES[name].dtype


def test_shards_are_even_or_sorted_or_uneven():
  sizes = {
    how: [
      len(shard["id"]) for shard in data.partition(EXAMPLES, 7, how=how, seed=1)
    ]
    for how in ("iid", "sorted", "dirichlet")
  }
  assert set(sizes["iid"]) == set(sizes["sorted"]) == {7, 8}
  assert np.std(sizes["dirichlet"]) > 2
  labels = [
    shard["label"] for shard in data.partition(EXAMPLES, 7, how="sorted")
  ]
  for earlier, later in itertools.pairwise(labels):
    assert earlier.max() <= later.min()


def test_seeds_decide():
  first, again, other = (
    [shard["id"].tolist() for shard in data.partition(EXAMPLES, 5, seed=seed)]
    for seed in (0, 0, 1)
  )
  assert first == again != other


def test_concentrated_shards_are_nearly_even():
  shards = data.partition(EXAMPLES, 2, how="dirichlet", concentration=1e6)
  assert abs(len(shards[0]["id"]) - N / 2) <= 2


STACKED = data.stack(data.partition(EXAMPLES, 5))


@pytest.mark.parametrize(
  ("request_", "is_forgotten"),
  [
    (
      data.request_by_id(STACKED, EXAMPLES["id"][[3, 30]]),
      lambda i: i in EXAMPLES["id"][[3, 30]],
    ),
    (data.request_by_class(STACKED, 2), lambda i: ALL[i][1] == 2),
    (
      data.request_by_client(STACKED, 1),
      lambda i: i in data.partition(EXAMPLES, 5)[1]["id"],
    ),
  ],
)
def test_requests_divide_what_is_present(request_, is_forgotten):
  forget, retain = present(request_.forget), present(request_.retain)
  assert set(forget) == {i for i in ALL if is_forgotten(i)}
  assert {**forget, **retain} == ALL
  assert not set(forget) & set(retain)
  for name in EXAMPLES:
    assert request_.forget[name] is request_.retain[name] is STACKED[name]


def test_requests_follow_one_another():
  once = data.request_by_id(STACKED, EXAMPLES["id"][:2]).retain
  twice = data.request_by_id(once, EXAMPLES["id"][2:5]).retain
  assert twice["weight"].sum() == N - 5
  with pytest.raises(ValueError, match="no client has"):
    data.request_by_id(once, EXAMPLES["id"][:1])


def test_weights_are_kept():
  halves = [
    {**shard, "weight": np.full(len(shard["id"]), 0.5)}
    for shard in data.partition(EXAMPLES, 4)
  ]
  stacked = data.stack(halves)
  assert stacked["weight"].sum() == N / 2
  assert data.request_by_client(stacked, 0).forget["weight"].sum() == 7


def test_clients_may_be_empty():
  shards = data.partition(EXAMPLES, 2)
  empty = {name: values[:0] for name, values in shards[0].items()}
  stacked = data.stack([*shards, empty])
  assert stacked["weight"].sum(1).tolist() == [27, 26, 0]
  with pytest.raises(ValueError, match="client 2 selects nothing"):
    data.request_by_client(stacked, 2)


@pytest.mark.parametrize(
  ("call", "match"),
  [
    (lambda: data.partition(EXAMPLES, 0), "num_clients is 0"),
    (lambda: data.partition(EXAMPLES, N + 1), "num_clients is 54"),
    (lambda: data.partition(EXAMPLES, 2, how="even"), "how is 'even'"),
    (
      lambda: data.partition(EXAMPLES, 2, concentration=0),
      "concentration is 0",
    ),
    (
      lambda: data.partition(EXAMPLES, N, how="dirichlet", concentration=1e-3),
      "must be larger",
    ),
    (lambda: data.stack([]), "clients is empty"),
    (
      lambda: data.request_by_client(EXAMPLES, 0),
      "'weight' must be one of them",
    ),
    (
      lambda: data.partition({"id": np.arange(4)}, 2, how="sorted"),
      "'label' must be one of them",
    ),
    (lambda: data.stack([{"a": [1]}, {"b": [1]}]), "have the keys"),
    (lambda: data.request_by_id(STACKED, [-1]), "ids contains -1"),
    (lambda: data.request_by_id(STACKED, EXAMPLES["id"][[0, 0]]), "twice"),
    (lambda: data.request_by_id(STACKED, []), "ids selects nothing"),
    (lambda: data.request_by_id(STACKED, EXAMPLES["id"]), "ids selects all"),
    (lambda: data.request_by_class(STACKED, 9), "label 9 selects nothing"),
    (lambda: data.request_by_client(STACKED, 5), "client is 5"),
  ],
)
def test_bad_arguments(call, match):
  with pytest.raises(ValueError, match=match):
    call()
