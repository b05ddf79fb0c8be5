"""Mixing of the clients' params: bodies of one client, run by `across`.

    mix(params of one client) -> sum_j W_ij params of client j

For `across(..., collective=True)`. Leaves keep their dtype, and W is read in
it: a float64 matrix never promotes float32 params.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from junlearn.parallel.across import AXES, gather
from junlearn.typing import Params

Mix = Callable[[Params], Params]


def dense(mixing: np.ndarray) -> Mix:
  """Gossip with any mixing matrix.

  Every device gathers the params of all clients: memory of `clients * params`.

  Args:
    mixing: W `[clients, clients]`, see `topology`.

  Raises:
    ValueError: (when applied) if W has another number of clients.
  """

  def mix(params):
    weights = jnp.asarray(mixing)[number(mixing)]

    def leaf(rows):
      # Anything less precise would not keep the mean.
      precision = jax.lax.Precision.HIGHEST
      return jnp.tensordot(
        weights.astype(rows.dtype), rows, 1, precision=precision
      )

    return jax.tree.map(leaf, gather(params))

  return mix


def ring(mixing: np.ndarray) -> Mix:
  """Gossip along a ring, or a ring that clients have left.

  A device sends the params of one client to each of its two neighbors.

  Args:
    mixing: W `[clients, clients]`, at least 3 clients, zero where two are
      neither equal nor neighbors on the ring.

  Raises:
    ValueError: if W is not of a ring; when applied, if W has another number
      of clients.
  """
  mixing = np.asarray(mixing)
  n = len(mixing)
  here = np.arange(n)
  left, right = (here - 1) % n, (here + 1) % n
  rest = mixing.copy()
  rest[here, here] = rest[here, left] = rest[here, right] = 0
  if n < 3 or rest.any():
    raise ValueError(
      f"mixing [{n}, {n}] is not of a ring; it must have at least 3 clients, "
      "and weights for client i at i - 1, i and i + 1 (mod n) alone."
    )
  weights = np.stack([mixing[here, j] for j in (here, left, right)], -1)

  def mix(params):
    own = jnp.asarray(weights)[number(mixing)]

    def leaf(x):
      self, left, right = own.astype(x.dtype)
      return (
        self * x + left * _from_neighbor(x, 1) + right * _from_neighbor(x, -1)
      )

    return jax.tree.map(leaf, params)

  return mix


def average(params: Params, weight: ArrayLike) -> Params:
  """What a server sends back: `sum_i w_i params_i / sum_i w_i`.

  Args:
    params: of one client.
    weight: w_i of this client, scalar, at least 0; what a client with weight 0
      holds is not read. All weights 0 give NaN.
  """
  weight = jnp.asarray(weight)

  def leaf(x):
    # Shares of many clients are too fine for 16 bits.
    dtype = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    w = weight.astype(dtype)
    mine = jnp.where(w > 0, w * x.astype(dtype), 0)
    return (jax.lax.psum(mine, AXES) / jax.lax.psum(w, AXES)).astype(x.dtype)

  return jax.tree.map(leaf, params)


def number(mixing: np.ndarray) -> jax.Array:
  """This client's number, for a matrix with a row for each client.

  Raises:
    ValueError: if there are more or fewer clients than rows.
  """
  clients = jax.lax.psum(1, AXES)
  if clients != len(mixing):
    raise ValueError(
      f"mixing has {len(mixing)} rows; for {clients} clients it must have "
      f"{clients}."
    )
  return jax.lax.axis_index(AXES)


def _from_neighbor(x, shift):
  """The leaf of client `i - shift`, with `shift` 1 or -1."""
  devices, members = AXES
  on_device, count = jax.lax.psum(1, members), jax.lax.psum(1, devices)
  if shift == 1:
    first, last = 0, on_device - 1
  else:
    first, last = on_device - 1, 0
  place = jax.lax.axis_index(members)
  within = jax.lax.ppermute(
    x, members, [(i, (i + shift) % on_device) for i in range(on_device)]
  )
  if count == 1:  # the block is the ring
    return within
  # Of a device's clients only the outermost crosses to the next device; the
  # sum picks it out without a copy for each client.
  outermost = jax.lax.psum(jnp.where(place == last, x, 0), members)
  crossed = jax.lax.ppermute(
    outermost, devices, [(i, (i + shift) % count) for i in range(count)]
  )
  return jnp.where(place == first, crossed, within)
