"""Graphs of clients and their mixing matrices; NumPy on the host.

An adjacency is a symmetric boolean matrix `[clients, clients]`, false on the
diagonal. A mixing matrix W is symmetric and doubly stochastic, and zero where
two clients are no neighbors; then gossip `X <- W X` keeps the mean and, with

    rho = max(|l_2|, |l_N|) < 1,    |[W^k]_iu - 1/N| <= rho^k (1 - 1/N),

brings all clients to it. A client that left stays in the stack as an isolated
node, its row of W being its unit row, so that shapes never change.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csgraph

from junlearn import validate

# Most that a mixing matrix may be off by, in its symmetry and its rows' sums.
TOLERANCE = 1e-12
_PERIODIC = 1e-9
_MAX_DRAWS = 100


def ring(n: int) -> np.ndarray:
  """Client i is a neighbor of i - 1 and i + 1 (mod n); n is at least 3."""
  validate.at_least(3, n=n)
  return _circulant(n, [1])


def exponential(n: int) -> np.ndarray:
  """Client i is a neighbor of i +- 2^k (mod n) for 2^k < n; n at least 2."""
  validate.at_least(2, n=n)
  return _circulant(n, [2**k for k in range((n - 1).bit_length())])


def complete(n: int) -> np.ndarray:
  """All clients are neighbors; n is at least 2."""
  validate.at_least(2, n=n)
  return ~np.eye(n, dtype=bool)


def torus(rows: int, columns: int) -> np.ndarray:
  """A grid that wraps around; client `r * columns + c`, both at least 2."""
  validate.at_least(2, rows=rows, columns=columns)
  clients = np.arange(rows * columns).reshape(rows, columns)
  edges = [
    np.stack([clients, np.roll(clients, -1, axis)], -1).reshape(-1, 2)
    for axis in (0, 1)
  ]
  return from_edges(rows * columns, np.concatenate(edges))


def erdos_renyi(n: int, probability: float, *, seed: int) -> np.ndarray:
  """Every edge is drawn independently, given that the graph is connected.

  Disconnected draws are thrown away, with up to 100 draws from one generator.

  Args:
    n: clients, at least 2.
    probability: of an edge, in (0, 1].
    seed: of NumPy's generator, at least 0.

  Raises:
    ValueError: if an argument is out of range, or no draw is connected.
  """
  validate.at_least(2, n=n)
  validate.fraction(probability=probability)
  rng = np.random.default_rng(seed)
  for _ in range(_MAX_DRAWS):
    upper = np.triu(rng.random((n, n)) < probability, 1)
    adjacency = upper | upper.T
    if _components(adjacency) == 1:
      return adjacency
  raise ValueError(
    f"probability is {probability}, with which none of {_MAX_DRAWS} graphs of "
    f"{n} clients is connected; it must be larger."
  )


def from_edges(n: int, edges: ArrayLike) -> np.ndarray:
  """The graph with the given edges.

  Args:
    n: clients, at least 1.
    edges: pairs of distinct clients in [0, n), `[edges, 2]`; each pair stands
      for both directions.

  Raises:
    ValueError: if an edge names no client, or joins a client with itself.
  """
  validate.at_least(1, n=n)
  edges = np.asarray(edges, int).reshape(-1, 2)
  for edge in edges:
    if edge.min() < 0 or edge.max() >= n or edge[0] == edge[1]:
      raise ValueError(
        f"edges contains {tuple(edge.tolist())}; an edge must join two "
        f"different clients in [0, {n})."
      )
  adjacency = np.zeros((n, n), bool)
  adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1
  return adjacency


def metropolis_hastings(adjacency: ArrayLike) -> np.ndarray:
  """The mixing matrix of a graph, from the degrees of neighbors alone.

      W_ij = 1 / (1 + max(deg_i, deg_j)) for neighbors,  W_ii = 1 - sum_j W_ij

  Returns:
    W `[clients, clients]`, float64.

  Raises:
    ValueError: if the adjacency is not symmetric, or not zero on the diagonal.

  **Guarantees**: W is symmetric and doubly stochastic, and
  W_ii >= 1 / (1 + deg_i) > 0, so that rho < 1 where the graph is connected.
  """
  graph = _graph(adjacency, "adjacency")
  if np.any(graph != graph.T):
    raise ValueError("adjacency is not symmetric; edges go both ways.")
  degree = graph.sum(1)
  weights = graph / (1 + np.maximum(degree[:, None], degree))
  return weights + np.diag(1 - weights.sum(1))


def remove(adjacency: ArrayLike, clients: int | Iterable[int]) -> np.ndarray:
  """The mixing matrix after clients have left: they are isolated nodes.

  Args:
    adjacency: of all clients.
    clients: one client, or all that have left so far.

  Returns:
    W by `metropolis_hastings` on the graph that remains, `[clients, clients]`.

  Raises:
    ValueError: if a client does not exist, or if those that remain are none,
      or no longer connected.
  """
  graph = _graph(adjacency, "adjacency").copy()
  gone = np.atleast_1d(np.asarray(clients, int))
  if _components(_rest(graph, gone)) != 1:
    raise ValueError(
      f"clients is {gone.tolist()}, without which the graph is not "
      "connected; the clients that remain must be."
    )
  graph[gone] = graph[:, gone] = False
  return metropolis_hastings(graph)


def check_mixing(mixing: ArrayLike, *, removed: Iterable[int] = ()) -> None:
  """Refuses a matrix with which gossip would not converge to the mean.

  Args:
    mixing: W `[clients, clients]`.
    removed: clients that have left, whose rows must be unit rows.

  Raises:
    ValueError: if W is not square, finite, non-negative, symmetric and doubly
      stochastic (to `TOLERANCE`), its graph is not connected, or rho is 1 (a
      bipartite graph whose clients give themselves no weight).
  """
  mixing = np.asarray(mixing)
  if mixing.ndim != 2 or mixing.shape[0] != mixing.shape[1]:
    raise ValueError(f"mixing has shape {mixing.shape}; it must be square.")
  _refuse(not np.isfinite(mixing).all(), "has NaN or infinite entries")
  least = mixing.min()
  _refuse(least < 0, f"has the negative entry {least:.3g}")
  asymmetry = np.abs(mixing - mixing.T).max()
  _refuse(asymmetry > TOLERANCE, f"is not symmetric (off by {asymmetry:.3g})")
  sums = mixing.sum(1)
  worst = sums[np.argmax(np.abs(sums - 1))]
  _refuse(abs(worst - 1) > TOLERANCE, f"has a row that sums to {worst:.13g}")
  removed = np.asarray(list(removed), int)
  rest = _rest(mixing, removed)
  _refuse(
    np.any(mixing[removed, removed] != 1), "gives weight to removed clients"
  )
  _refuse(_components(rest) != 1, "has a graph that is not connected")
  rho = spectrum(mixing, removed=removed).rho
  _refuse(rho > 1 - _PERIODIC, f"is periodic (rho is {rho})")


def removed(mixing: ArrayLike) -> np.ndarray:
  """The clients that have left: their rows are unit rows.

  A client that is the only one has not left.
  """
  mixing = np.asarray(mixing)
  return np.flatnonzero((np.diag(mixing) == 1) & (len(mixing) > 1))


class Spectrum(NamedTuple):
  """Eigenvalues 1 = l_1 >= l_2 >= ... >= l_N of a mixing matrix.

  Attributes:
    rho: max(|l_2|, |l_N|), the factor by which a round of gossip shrinks the
      distance to the mean; 0 for a single client.
    second: l_2.
    smallest: l_N.
  """

  rho: float
  second: float
  smallest: float


def spectrum(mixing: ArrayLike, *, removed: Iterable[int] = ()) -> Spectrum:
  """The eigenvalues that bound gossip, of the clients that have not left."""
  mixing = np.asarray(mixing, np.float64)
  values = np.linalg.eigvalsh(_rest(mixing, np.asarray(list(removed), int)))
  if len(values) == 1:
    return Spectrum(0.0, 0.0, float(values[0]))
  second, smallest = float(values[-2]), float(values[0])
  return Spectrum(max(abs(second), abs(smallest)), second, smallest)


def _refuse(failed, what):
  if failed:
    raise ValueError(
      f"mixing {what}; it must be a symmetric, doubly stochastic matrix of a "
      "connected graph with rho < 1."
    )


def _circulant(n, offsets):
  clients = np.arange(n)
  pairs = [
    np.stack([clients, (clients + offset) % n], -1) for offset in offsets
  ]
  return from_edges(n, np.concatenate(pairs))


def _graph(matrix, name):
  """The adjacency of a matrix: true where two clients have an entry."""
  matrix = np.asarray(matrix) != 0
  if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
    raise ValueError(f"{name} has shape {matrix.shape}; it must be square.")
  return matrix & ~np.eye(len(matrix), dtype=bool)


def _rest(matrix, removed):
  """Rows and columns of the clients that have not left."""
  n = len(matrix)
  if len(removed) and not 0 <= removed.min() <= removed.max() < n:
    raise ValueError(
      f"clients is {removed.tolist()}; clients must be in [0, {n})."
    )
  keep = np.setdiff1d(np.arange(n), removed)
  if not len(keep):
    raise ValueError("clients names all clients; one at least must remain.")
  return matrix[np.ix_(keep, keep)]


def _components(graph):
  return csgraph.connected_components(graph, directed=False)[0]
