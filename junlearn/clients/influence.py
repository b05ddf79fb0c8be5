"""How a deletion would have spread through training, without retraining.

With T the round of training and T^- the round without what was deleted, the
influence E_k = X^-_k - X_k of the deletion on all clients' params after k
rounds from a common start follows, to first order,

    E_{k+1} = J_{T^-}(X_k)[E_k] + T^-(X_k) - T(X_k),    E_0 = 0.

The Jacobian is that of the whole round (jvp), so that any round will do; the
trajectory X_k is run through again, not stored. To leave the losses' curvature
out, as powers of W alone do,

    E_{k+1} = W E_k + T^-(X_k) - T(X_k),

is no substitute: curvature is what makes influence fade.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from junlearn import validate
from junlearn.clients.gossip import Mix
from junlearn.clients.rounds import Round, round_key
from junlearn.typing import Params, Vector


class Influence(NamedTuple):
  """Of a deletion, on one client.

  Attributes:
    value: E_K, like the params.
    norm: |E_k| for k = 1 ... K, `[num_rounds]`.
  """

  value: Vector
  norm: jax.Array


def propagate(
  before: Round, after: Round, *, num_rounds: int, mix: Mix | None = None
) -> Callable[..., tuple[Params, Influence]]:
  """The linearized influence of a deletion, along the training it follows.

  Args:
    before: T.
    after: T^-; T itself where the deletion changes the data alone, another
      round where a client leaves the graph.
    num_rounds: K, at least 0.
    mix: None for the Jacobian of `after`; otherwise what takes its place, for
      the curvature-free form above.

  Returns:
    `(params, data, data_after, key=None) -> (params, Influence)` of one client,
    for the body of `across`: the params after K rounds of T on `data`, and the
    influence of training by T^- on `data_after` instead, with the same keys.
    Memory: a few times the params, whatever K is.

  **Guarantees**: exact for quadratic risks; otherwise the error is of second
  order in E_k.

  Raises:
    ValueError: if `num_rounds` is below 0.
  """
  validate.at_least(0, num_rounds=num_rounds)

  def run(params, data, data_after, key=None):
    def step(carry, k):
      params, value = carry
      key_k = round_key(key, k)

      def without(params):
        return after(params, data_after, key_k)

      if mix is None:
        target, moved = jax.jvp(without, (params,), (value,))
      else:
        target, moved = without(params), mix(value)
      following = before(params, data, key_k)
      value = jax.tree.map(
        lambda e, a, b: e + (a - b), moved, target, following
      )
      return (following, value), optax.tree.norm(value)

    start = params, optax.tree.zeros_like(params)
    (params, value), norms = jax.lax.scan(step, start, jnp.arange(num_rounds))
    return params, Influence(value, norms)

  return run
