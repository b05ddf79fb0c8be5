"""Examples of many clients, and requests over them; NumPy on the host.

Stacked examples are dicts of arrays `[clients, n, ...]` with `weight`
`[clients, n]`: 1 for an example, 0 where a client has fewer than n. A request's
`forget` and `retain` share the arrays and differ in their weights, so that all
requests have the same shapes and clients keep their place.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from junlearn import tree, validate
from junlearn.transform import Request

Examples = Mapping[str, Any]
How = Literal["iid", "sorted", "dirichlet"]

_MAX_DRAWS = 100


def partition(
  examples: Examples,
  num_clients: int,
  *,
  how: How = "iid",
  seed: int = 0,
  concentration: float = 0.5,
) -> list[dict[str, Any]]:
  """Divides examples among clients; every client has one at least.

  Args:
    examples: arrays `[n, ...]`, with a `label` unless `how` is "iid".
    num_clients: in [1, n].
    how: "iid" gives shards of equal size at random; "sorted" gives shards of
      equal size in the order of the labels, so that a client knows few classes;
      "dirichlet" divides each class by proportions drawn from a symmetric
      Dirichlet distribution, again until no client is empty.
    seed: of NumPy's generator, at least 0.
    concentration: of the Dirichlet distribution, above 0; small is uneven.

  Returns:
    The examples of each client, in their order.

  Raises:
    ValueError: if an argument is out of range, or a client stays empty.
  """
  n = tree.size(examples)
  validate.within(f"[1, {n}]", num_clients=num_clients)
  validate.positive(concentration=concentration)
  validate.one_of(get_args(How), how=how)
  rng = np.random.default_rng(seed)
  if how == "iid":
    shards = np.array_split(rng.permutation(n), num_clients)
  elif how == "sorted":
    order = np.argsort(_leaf(examples, "label"), kind="stable")
    shards = np.array_split(order, num_clients)
  else:
    shards = _dirichlet(
      rng, _leaf(examples, "label"), num_clients, concentration
    )
  return [tree.take(dict(examples), np.sort(shard)) for shard in shards]


def stack(clients: Sequence[Examples]) -> dict[str, Any]:
  """Stacks the examples of clients that have different numbers of them.

  Args:
    clients: dicts of arrays `[n_i, ...]` with the same keys; n_i may be 0.

  Returns:
    Arrays `[clients, max n_i, ...]` with a `weight`, float32. Where an example
    is absent, its `id` is -1 and everything else 0.

  Raises:
    ValueError: if there is no client, or their keys differ.
  """
  if not clients:
    raise ValueError("clients is empty; at least one is needed.")
  keys = {frozenset(examples) for examples in clients}
  if len(keys) > 1:
    raise ValueError(
      f"clients have the keys {sorted(map(sorted, keys))}; all must have the "
      "same."
    )
  sizes = [tree.size(examples) for examples in clients]

  def padded(name, values):
    values = np.asarray(values)
    rows = [(0, max(sizes) - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, rows, constant_values=-1 if name == "id" else 0)

  weighted = [
    {"weight": np.ones(size, np.float32), **examples}
    for size, examples in zip(sizes, clients, strict=True)
  ]
  return {
    name: np.stack([padded(name, examples[name]) for examples in weighted])
    for name in weighted[0]
  }


def request_by_id(examples: Examples, ids: ArrayLike) -> Request:
  """Forgets the records with the given ids, wherever they are.

  Args:
    examples: stacked, with an `id`.
    ids: distinct ids `[m]`, in any order.

  Raises:
    ValueError: if `ids` is empty, or has duplicates or unknown ids, or nothing
      would be retained.
  """
  ids = np.atleast_1d(np.asarray(ids))
  present = _leaf(examples, "weight") > 0
  known = _leaf(examples, "id")
  unknown = ids[~np.isin(ids, known[present])]
  if unknown.size:
    raise ValueError(
      f"ids contains {unknown[0]}, which no client has; each must be the id "
      "of an example."
    )
  if len(np.unique(ids)) < len(ids):
    raise ValueError("ids contains an id twice; each must be given once.")
  return _divide("ids", examples, np.isin(known, ids))


def request_by_class(examples: Examples, label: int) -> Request:
  """Forgets all examples of one class, at all clients.

  Raises:
    ValueError: if no example or every example has the label.
  """
  return _divide(f"label {label}", examples, _leaf(examples, "label") == label)


def request_by_client(examples: Examples, client: int) -> Request:
  """Forgets all examples of one client.

  Whether it also leaves the graph is another matter: see `topology.remove`.

  Raises:
    ValueError: if the client does not exist, or has no or all examples.
  """
  clients, n = _leaf(examples, "weight").shape
  validate.within(f"[0, {clients})", client=client)
  is_forgotten = np.repeat(np.arange(clients)[:, None] == client, n, axis=1)
  return _divide(f"client {client}", examples, is_forgotten)


def _leaf(examples, key):
  if key not in examples:
    raise ValueError(
      f"examples has the keys {sorted(examples)}; {key!r} must be one of them."
    )
  return np.asarray(examples[key])


def _dirichlet(rng, labels, num_clients, concentration):
  for _ in range(_MAX_DRAWS):
    parts: list[list[np.ndarray]] = [[] for _ in range(num_clients)]
    for label in np.unique(labels):
      rows = rng.permutation(np.flatnonzero(labels == label))
      proportions = rng.dirichlet(np.full(num_clients, concentration))
      cuts = np.round(np.cumsum(proportions)[:-1] * len(rows)).astype(int)
      for mine, part in zip(parts, np.split(rows, cuts), strict=True):
        mine.append(part)
    shards = [np.concatenate(mine) for mine in parts]
    if all(len(shard) for shard in shards):
      return shards
  raise ValueError(
    f"concentration is {concentration}, with which {num_clients} clients were "
    f"not all given examples in {_MAX_DRAWS} draws; it must be larger."
  )


def _divide(argument, examples, is_forgotten):
  weight = _leaf(examples, "weight")
  forget = np.where(is_forgotten, weight, 0)
  retain = np.where(is_forgotten, 0, weight)
  for part, what in ((forget, "nothing"), (retain, "all examples")):
    if not part.any():
      raise ValueError(
        f"{argument} selects {what}; at least one example must be forgotten "
        "and one retained."
      )
  return Request(
    forget={**examples, "weight": forget}, retain={**examples, "weight": retain}
  )
