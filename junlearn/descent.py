"""Iterated methods: an objective, an optimizer, a view and a loop.

A `Descent` is a pair like optax's, over whole steps; `run` makes a transform
of it. Everything but the loop is pure, so one descent is scanned, looped from
Python, or mapped over a population without being written again.
"""

from typing import Literal, NamedTuple, Required, TypedDict, Unpack

import jax
import jax.numpy as jnp
import optax

from junlearn import batch as batches
from junlearn import tree, validate
from junlearn.early_stopping import Init, StopRule, stopping
from junlearn.loop import Loop, Step, scan
from junlearn.objective import Objective
from junlearn.parallel.across import AXES, Backend, across, data_parallel
from junlearn.parallel.sharding import Layout, beside, replicated
from junlearn.transform import Request, Result, Transform, stage_key
from junlearn.typing import Params, PyTree
from junlearn.view import View, full

Placement = Layout | Literal["replicated"] | None


class State(NamedTuple):
  """What a step changes: the params and the optimizer's state."""

  params: Params
  optimizer: PyTree


class Descent(NamedTuple):
  """A pair of pure functions.

  Attributes:
    init: `(key, params, request) -> (state, xs)`; `xs` has the steps on axis 0
      and holds what each step reads: row numbers and keys.
    step: `(state, x, (request, reference)) -> (state, info)`.
  """

  init: Init
  step: Step


class DescentOptions(TypedDict, total=False):
  """The options of `gradient_descent`, for all that build on it.

  num_steps: steps, at least 0; 0 leaves the params as they are.
  batch_size: rows of each part of the request a step, at least 1.
  view: which leaves are free; None means `view.full()`.
  microbatches: pieces that a batch is divided into, one after the other in
    memory; at least 1, the default.
  layout: where params and batches lie: None, as given; "replicated" on every
    local device; or divided over the mesh of a `sharding.Layout`.
  stop: the goal at which the descent stops, which in the infos then adds `now`,
    `first`, `taken` and `stopped` (see `early_stopping`); None takes all steps.
  """

  num_steps: Required[int]
  batch_size: Required[int]
  view: View | None
  microbatches: int
  layout: Placement
  stop: StopRule | None


class DescendOptions(DescentOptions, total=False):
  """The options of `descend`: those of `gradient_descent` and `loop`.

  loop: how steps are repeated; None means `loop.scan()`.
  """

  loop: Loop | None


def gradient_descent(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  num_steps: int,
  batch_size: int,
  view: View | None = None,
  microbatches: int = 1,
  layout: Placement = None,
  stop: StopRule | None = None,
) -> Descent:
  """Stochastic descent of an objective along the free leaves of a view.

  Each step draws `batch_size` rows of every part that the request has (see
  `batch.indices`); the steps' keys and batches depend on the key alone.

  Args:
    objective: what to minimize.
    optimizer: any optax transformation.
    num_steps: steps, at least 0; 0 leaves the params as they are.
    batch_size: rows of each part a step, at least 1.
    view: which leaves are free; None means `view.full()`. One that must move
      adds `gradient_norm` to the infos, NaN where all gradients are zero.
    microbatches: pieces that a batch is divided into, one after the other in
      memory; at least 1.
    layout: where params and batches lie. None: as given, on one device.
      "replicated": the params on every local device, each of which takes its
      part of a batch (`jax.pmap`). A `sharding.Layout`: params, optimizer
      state and batches are divided over its mesh.
    stop: the goal at which the descent freezes, see `early_stopping`; None
      takes all steps.

  Guarantees:
    Up to rounding, a step is the same for any `microbatches` and `layout` if
    the objective is a mean over a part's examples in evaluation mode. Of
    others, what was found in pieces (of microbatches, and of "replicated"
    devices) is averaged with equal weights: means over tokens or present
    examples become means of the pieces' means. Each piece has its own key and
    batch statistics.

  Raises:
    ValueError: if `num_steps`, `batch_size` or `microbatches` is out of range,
      or the batch does not divide evenly; if the layout is unknown.
  """
  validate.at_least(0, num_steps=num_steps)
  validate.at_least(1, batch_size=batch_size, microbatches=microbatches)
  view = view or full()
  home = _home(layout)
  shards = home.shards if home else 1
  place = home.place if home else lambda state: state
  if batch_size % (microbatches * shards):
    raise ValueError(
      f"batch_size is {batch_size}; it must be a multiple of "
      f"{microbatches * shards} ({microbatches} microbatches, {shards} devices "
      "that divide a batch)."
    )

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
    params = place(params)
    state = State(params, optimizer.init(view.split(params)[0]))
    return state, {"rows": rows, "key": keys}

  def gradients(key, rows, free, fixed, data):
    request, reference = data
    batch = Request(None, None)._replace(
      **{p: tree.take(getattr(request, p), i) for p, i in rows.items()}
    )
    if isinstance(layout, Layout):
      batch = layout.place_rows(batch)

    def value(free):
      return objective(
        view.merge(free, fixed), batch, reference=reference, key=key
      )

    (loss, (params, terms)), grads = jax.value_and_grad(value, has_aux=True)(
      free
    )
    # The params that the objective returned carry new batch statistics.
    return (grads, {"loss": loss, **terms}), view.split(params)[1]

  if microbatches > 1:
    gradients = _one_by_one(gradients, microbatches)
  if layout == "replicated":
    gradients = _side_by_side(gradients, shards, view)

  def step(state, x, data):
    # At both ends, so that neither a loop's carry nor its result moves.
    state = place(state)
    free, fixed = view.split(state.params)
    (grads, info), fixed = gradients(x["key"], x["rows"], free, fixed, data)
    if view.must_move:
      norm = optax.tree.norm(grads)
      info["gradient_norm"] = jnp.where(norm == 0, jnp.nan, norm)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, free)
    params = view.merge(optax.apply_updates(free, updates), fixed)
    return place(State(params, optimizer_state)), info

  if stop is not None:
    return Descent(*stopping(init, step, stop))
  return Descent(init, step)


def _home(layout):
  """Where the state of a descent is kept; None where it is given."""
  if layout is None or isinstance(layout, Layout):
    return layout
  if layout != "replicated":
    raise ValueError(
      f"layout is {layout!r}; it must be None, 'replicated' or a Layout."
    )
  return replicated()


# gradients: (key, rows, free, fixed, data) -> (found, fixed), where `found` is
# averaged over pieces of the batch and `fixed` carries batch statistics.


def _one_by_one(gradients, microbatches):
  """The mean over pieces that are in memory one after the other.

  Sums are kept for what is free alone, in at least single precision.
  """

  def zeros(leaf):
    is_wide = leaf.dtype.itemsize >= 4
    return jnp.zeros(leaf.shape, leaf.dtype if is_wide else jnp.float32)

  def mean(key, rows, free, fixed, data):
    # Every device of a mesh has rows in each piece: the fast axis is cut.
    rows = jax.tree.map(lambda i: i.reshape(-1, microbatches).T, rows)
    pieces = jax.random.split(key, microbatches), rows

    def add(carry, piece):
      fixed, sums = carry
      found, fixed = gradients(*piece, free, fixed, data)
      sums = jax.tree.map(lambda s, f: s + f.astype(s.dtype), sums, found)
      return (fixed, sums), None

    shapes, _ = jax.eval_shape(
      gradients, *tree.take(pieces, 0), free, fixed, data
    )
    start = fixed, jax.tree.map(zeros, shapes)
    (fixed, sums), _ = jax.lax.scan(add, start, pieces)
    found = jax.tree.map(
      lambda s, f: (s / microbatches).astype(f.dtype), sums, shapes
    )
    return found, fixed

  return mean


def _side_by_side(gradients, devices, view):
  """The mean over pieces, one on each local device."""

  def mean_state(leaf):
    is_number = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return jax.lax.pmean(leaf, AXES[0]) if is_number else leaf

  def mean(device, key, rows, free, fixed, data):
    key = jax.random.fold_in(key, device)
    rows = jax.tree.map(lambda i: i.reshape(devices, -1)[device], rows)
    found, fixed = gradients(key, rows, free, fixed, data)
    weights, state = full().split(view.merge(free, fixed))
    params = full().merge(weights, jax.tree.map(mean_state, state))
    return jax.lax.pmean(found, AXES[0]), view.split(params)[1]

  return data_parallel(mean)


def population(
  descent: Descent, request_axes: PyTree = None, *, backend: Backend = "vmap"
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
    data = beside(state.params, data)
    state, infos = loop(descent.step, state, xs, (data, state.params))
    finite = tree.all_finite((state.params, infos))
    return Result(state.params, request, {"steps": infos, "finite": finite})

  return transform


def descend(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  loop: Loop | None = None,
  **options: Unpack[DescentOptions],
) -> Transform:
  """`run(gradient_descent(...), loop)`.

  Args:
    objective: what to minimize.
    optimizer: any optax transformation.
    loop: how steps are repeated; None means `loop.scan()`.
    **options: of `gradient_descent`, see there.
  """
  return run(gradient_descent(objective, optimizer, **options), loop)
