"""Rounds of training, as bodies of one client, run by `across`.

    Round: (params, data, key=None) -> params

of one client, for `across(..., collective=True)`. As in `Model.apply`, rounds
that draw something need a key, the same for all clients. The params are learned
as a whole: batch statistics have no place in a `risk`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from junlearn import objective, validate
from junlearn.clients.gossip import Mix, average
from junlearn.descent import Descent, State
from junlearn.loss import Loss
from junlearn.parallel.across import AXES, Backend, across, gather
from junlearn.transform import Request, Transform
from junlearn.typing import Examples, Key, Params

Round = Callable[..., Params]
Risk = Callable[[Params, Examples], jax.Array]
Weighting = Literal["uniform", "sample"]


def scale(weighting: Weighting) -> Callable[[Examples], jax.Array | float]:
  """What a client's mean loss is multiplied by, `examples -> s_i`.

  s_i = 1 ("uniform": clients count alike) or s_i = N n_i / n ("sample":
  examples count alike), N being the number of clients that have examples, n_i
  those of client i and n those of all. Both have the minimizer of
  (1/N) sum_i F_i in common where the n_i are equal; after examples of one
  client were deleted they are not.

  Returns:
    For the body of `across`; "sample" communicates with the other clients.

  Raises:
    ValueError: if there is no such weighting.
  """
  validate.one_of(get_args(Weighting), weighting=weighting)

  def sample(examples):
    n = count(examples)
    active = jax.lax.psum((n > 0).astype(n.dtype), AXES)
    return active * n / jax.lax.psum(n, AXES)

  return sample if weighting == "sample" else lambda examples: 1.0


def risk(
  loss: Loss, *, l2: float = 0.0, weighting: Weighting = "uniform"
) -> Risk:
  """The risk of one client, in evaluation mode.

      F_i(x) = s_i mean_{z in S_i} l(x, z) + (l2 / 2) |x|^2

  Args:
    loss: per-example loss.
    l2: at least 0; on every leaf, and on clients without examples too.
    weighting: gives s_i, see `scale`; an example counts by its `weight`.

  Returns:
    `(params, examples) -> scalar`, for the body of `across`.

  Raises:
    ValueError: if `l2` or `weighting` is out of range.
  """
  return objective.risk(loss, l2=l2, scale=scale(weighting))


def gradient_descent(risk: Risk, mix: Mix, *, step_size: float) -> Round:
  """Decentralized gradient descent on full batches (DGD, DSGD).

      x_i <- sum_j W_ij x_j - gamma grad F_i(x_i)

  Args:
    risk: F_i.
    mix: W, by `gossip`.
    step_size: gamma, above 0.

  **Guarantees**: a round is a step of gradient descent, of length gamma, on

      Psi(X) = sum_i F_i(x_i) + <X, (I - W) X> / (2 gamma),

  whose minimizer is the fixed point; with F_i beta-smooth it is reached for
  gamma < (1 + l_N(W)) / beta. It is not the minimizer of sum_i F_i, but
  within O(gamma) of it.

  Raises:
    ValueError: if `step_size` is not above 0.
  """
  validate.positive(step_size=step_size)

  def round(params, examples, key=None):
    del key
    return _move(mix(params), jax.grad(risk)(params, examples), step_size)

  return round


def adapt_then_combine(
  risk: Risk, mix: Mix, *, step_size: float, num_steps: int
) -> Round:
  """Local steps of gradient descent on full batches, then gossip.

      X <- W GD_gamma^tau(X)

  Args:
    risk: F_i.
    mix: W, by `gossip`.
    step_size: gamma, above 0.
    num_steps: tau, at least 1.

  **Guarantees**: with F_i l2-strongly convex and beta-smooth and
  gamma <= 1 / beta, a round is a contraction by (1 - gamma l2)^tau.

  Raises:
    ValueError: if an argument is out of range.
  """
  validate.positive(step_size=step_size)
  validate.at_least(1, num_steps=num_steps)

  def round(params, examples, key=None):
    del key

    def step(_, params):
      return _move(params, jax.grad(risk)(params, examples), step_size)

    return mix(_times(num_steps, step, params))

  return round


def federated_averaging(
  local: Transform,
  *,
  fraction: float = 1.0,
  weighting: Weighting = "sample",
) -> Round:
  """A server averages what some clients make of its params (FedAvg).

      x <- sum_{i in C} p_i local_i(x),    p_i ~ n_i or equal

  Each round draws `round(fraction * N)` clients (one at least) of the N that
  have examples to retain. The local transform starts afresh, optimizer state
  included, with key `fold_in(key, i)` for client i; all clients run it, and
  what those outside C make of it is not read.

  Source: B. McMahan et al., "Communication-Efficient Learning of Deep Networks
  from Decentralized Data", AISTATS 2017, algorithm 1.

  Args:
    local: what a client does; the round's `data` is its `Request`.
    fraction: of clients a round, in (0, 1].
    weighting: "sample" weighs a client by the examples in its `retain`.

  Raises:
    ValueError: if an argument is out of range; when applied, without a key.
  """
  validate.fraction(fraction=fraction)
  validate.one_of(get_args(Weighting), weighting=weighting)

  def round(params, request: Request, key=None):
    if key is None:
      raise ValueError("federated_averaging: key is None; it draws clients.")
    clients_key, local_key = jax.random.split(key)
    number = jax.lax.axis_index(AXES)
    params = local(
      jax.random.fold_in(local_key, number), params, request
    ).params
    n = count(request.retain)
    weight = n if weighting == "sample" else (n > 0).astype(n.dtype)
    drawn = _draw(clients_key, n > 0, fraction)[number]
    return average(params, jnp.where(drawn, weight, 0))

  return round


def iterate(round: Round, *, num_rounds: int) -> Round:
  """`num_rounds` rounds, in one compiled loop; round k has `fold_in(key, k)`.

  Raises:
    ValueError: if `num_rounds` is below 0.
  """
  validate.at_least(0, num_rounds=num_rounds)

  def rounds(params, data, key=None):
    return _times(
      num_rounds,
      lambda k, params: round(params, data, round_key(key, k)),
      params,
    )

  return rounds


def descent(
  round: Round,
  *,
  num_rounds: int,
  read: Callable[[Request], Any] = lambda request: request.retain,
  backend: Backend = "vmap",
) -> Descent:
  """Rounds as a descent of stacked params, for `descent.run` and its loops.

  Args:
    round: of one client.
    num_rounds: at least 0.
    read: `request -> data` of the round, stacked over the clients.
    backend: how the clients are run, see `across`; not "map".

  Returns:
    A descent whose info is `residual`, |X - T(X)|_F of each round's start.

  Raises:
    ValueError: if `num_rounds` is below 0.
  """
  validate.at_least(0, num_rounds=num_rounds)

  def body(params, data, key):
    following = round(params, data, key)
    return following, _movement(params, following)

  mapped = across(body, in_axes=(0, 0, None), backend=backend, collective=True)

  def init(key, params, request):
    del request
    keys = jax.vmap(lambda k: round_key(key, k))(jnp.arange(num_rounds))
    return State(params, None), {"key": keys}

  def step(state, x, data):
    request, _ = data
    params, residual = mapped(state.params, read(request), x["key"])
    return State(params, None), {"residual": residual[0]}

  return Descent(init, step)


class FixedPointInfo(NamedTuple):
  """How a fixed point was reached; the same for all clients.

  Attributes:
    rounds: of training taken.
    residual: |X - T(X)| over all clients, of the params returned; above the
      tolerance, or NaN, where it was not reached.
  """

  rounds: jax.Array
  residual: jax.Array


def to_fixed_point(
  round: Round, *, tolerance: float, max_rounds: int
) -> Callable[[Params, Any], tuple[Params, FixedPointInfo]]:
  """Rounds until all clients together move no further than the tolerance.

      |X - T(X)|_F <= tolerance

  Args:
    round: T, one that draws nothing.
    tolerance: above 0; below about 1e-5 only in double precision.
    max_rounds: at least 1; gives up after as many.

  Returns:
    `(params, data) -> (params, FixedPointInfo)`, for the body of `across`. The
    residual is measured at the params returned, for which one more round is
    computed than taken.

  **Guarantees**: the params are within residual / (1 - kappa) of the fixed
  point. Assumes that T is a contraction by kappa.

  Raises:
    ValueError: if an argument is out of range.
  """
  validate.positive(tolerance=tolerance)
  validate.at_least(1, max_rounds=max_rounds)

  def run(params, data):
    def measured(params):
      following = round(params, data)
      return following, _movement(params, following)

    def going_on(carry):
      _, _, info = carry
      return (info.residual > tolerance) & (info.rounds < max_rounds)

    def step(carry):
      _, following, info = carry
      further, residual = measured(following)
      return following, further, FixedPointInfo(info.rounds + 1, residual)

    following, residual = measured(params)
    start = params, following, FixedPointInfo(jnp.int32(0), residual)
    params, _, info = jax.lax.while_loop(going_on, step, start)
    return params, info

  return run


def count(examples: Examples) -> jax.Array:
  """Examples of one client, by `weight` where they have one; a float."""
  if "weight" in examples:
    return jnp.sum(examples["weight"].astype(float))
  return jnp.asarray(jax.tree.leaves(examples)[0].shape[0], float)


def round_key(key: Key | None, k: int | jax.Array) -> Key | None:
  """The key of round `k`; None for rounds that draw nothing."""
  return None if key is None else jax.random.fold_in(key, k)


def _move(params, gradient, step_size):
  return jax.tree.map(
    lambda x, g: x - jnp.asarray(step_size, x.dtype) * g, params, gradient
  )


def _movement(params, following):
  """|X - T(X)|_F over all clients."""
  difference = optax.tree.sub(params, following)
  local = optax.tree.norm(difference, squared=True)
  return jnp.sqrt(jax.lax.psum(local, AXES))


def _times(n, step, carry):
  """`step(k, carry)` for k = 0 ... n - 1, differentiable in both modes."""
  return jax.lax.scan(
    lambda carry, k: (step(k, carry), None), carry, jnp.arange(n)
  )[0]


def _draw(key, present, fraction):
  """Whether each client takes part, `[clients]`, from each one's `present`."""
  present = gather(present)
  noise = jax.random.uniform(key, present.shape)
  order = jnp.argsort(jnp.where(present, noise, 2.0))  # absent clients last
  rank = jnp.argsort(order)
  number = jnp.round(fraction * jnp.sum(present, dtype=jnp.float32))
  return present & (rank < jnp.maximum(number, 1).astype(rank.dtype))
