"""Iterated methods: an objective, an optimiser, a view and a loop.

A `Descent` is a pair like optax's, over whole steps; `run` makes a transform
of it. Everything but the loop is pure, so one descent is scanned, looped from
Python, or mapped over a population without being written again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from junlearn import batch as batches
from junlearn import tree
from junlearn.across import Backend, across
from junlearn.loop import Loop, scan
from junlearn.objective import Objective
from junlearn.transform import Request, Result, Transform, stage_key
from junlearn.view import View, full


class State(NamedTuple):
  """What a step changes: the params and the optimiser's state."""

  params: Any
  optimizer: Any


class Descent(NamedTuple):
  """A pair of pure functions.

  Attributes:
    init: `(key, params, request) -> (state, xs)`; `xs` has the steps on axis 0
      and holds what each step reads: row numbers and keys.
    step: `(state, x, (request, reference)) -> (state, info)`.
  """

  init: Callable[[jax.Array, Any, Request], tuple[State, Any]]
  step: Callable[[State, Any, tuple[Request, Any]], tuple[State, Any]]


def gradient_descent(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  num_steps: int,
  batch_size: int,
  view: View | None = None,
) -> Descent:
  """Stochastic descent of an objective along the free leaves of a view.

  Each step draws `batch_size` rows of every part that the request has (see
  `batch.indices`); the steps' keys and batches depend on the key alone.

  Args:
    objective: what to minimise.
    optimizer: any optax transformation.
    num_steps: steps, at least 0; 0 leaves the params as they are.
    batch_size: rows of each part a step, at least 1.
    view: which leaves are free; None means `view.full()`. One that must move
      adds `gradient_norm` to the infos, NaN where all gradients are zero.

  Raises:
    ValueError: if `num_steps` or `batch_size` is out of range.
  """
  if num_steps < 0:
    raise ValueError(f"num_steps is {num_steps}; it must be at least 0.")
  if batch_size < 1:
    raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
  view = view or full()

  def init(key, params, request):
    rows = {
      part: batches.indices(
        stage_key(key, part),
        examples,
        num_steps=num_steps,
        batch_size=batch_size,
      )
      for part, examples in request._asdict().items()
      if examples is not None
    }
    keys = jax.random.split(stage_key(key, "steps"), num_steps)
    state = State(params, optimizer.init(view.split(params)[0]))
    return state, {"rows": rows, "key": keys}

  def step(state, x, data):
    request, reference = data
    batch = Request(None, None)._replace(
      **{p: tree.take(getattr(request, p), i) for p, i in x["rows"].items()}
    )
    free, fixed = view.split(state.params)

    def value(free):
      return objective(
        view.merge(free, fixed), batch, reference=reference, key=x["key"]
      )

    (loss, (params, terms)), grads = jax.value_and_grad(value, has_aux=True)(
      free
    )
    if view.must_move:
      norm = optax.tree.norm(grads)
      terms["gradient_norm"] = jnp.where(norm == 0, jnp.nan, norm)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, free)
    free = optax.apply_updates(free, updates)
    # The params that the objective returned carry new batch statistics.
    params = view.merge(free, view.split(params)[1])
    return State(params, optimizer_state), {"loss": loss, **terms}

  return Descent(init, step)


def population(
  descent: Descent, request_axes: Any = None, *, backend: Backend = "vmap"
) -> Descent:
  """One member per row of the keys and params.

  Args:
    descent: the descent of one member.
    request_axes: as `in_axes` of `across` for the request: None where the
      members share an array, 0 where each has its own (its weights, say).
    backend: how the members are run, see `across`.

  Returns:
    A descent of stacked params, whose infos are `[num_steps, members]`.
  """
  init = across(descent.init, in_axes=(0, 0, request_axes), backend=backend)

  def mapped_init(key, params, request):
    state, xs = init(key, params, request)
    # Loops want the steps on axis 0.
    return state, jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), xs)

  return Descent(
    init=jax.jit(mapped_init),
    step=across(
      descent.step, in_axes=(0, 0, (request_axes, 0)), backend=backend
    ),
  )


def run(descent: Descent, loop: Loop | None = None) -> Transform:
  """The transform that takes all steps of a descent.

  `info` is `{"steps": the infos stacked, "finite": scalar bool}`.
  """
  loop = loop or scan()

  def transform(key, params, request):
    data = jax.tree.map(jnp.asarray, request)
    state, xs = descent.init(key, params, data)
    state, infos = loop(descent.step, state, xs, (data, params))
    finite = tree.all_finite((state.params, infos))
    return Result(state.params, request, {"steps": infos, "finite": finite})

  return transform


def descend(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  num_steps: int,
  batch_size: int,
  view: View | None = None,
  loop: Loop | None = None,
) -> Transform:
  """`run(gradient_descent(...), loop)`; see there for the arguments."""
  descent = gradient_descent(
    objective,
    optimizer,
    num_steps=num_steps,
    batch_size=batch_size,
    view=view,
  )
  return run(descent, loop)
