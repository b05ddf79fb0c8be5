"""Early stopping that fits a scan: a descent that freezes.

A descent has a fixed number of steps, so that it can be compiled, mapped and
resumed. One that has reached its goal keeps its state for the rest of them,
which costs next to nothing outside `vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from junlearn import tree, validate
from junlearn.loop import Step
from junlearn.transform import Request, stage_key
from junlearn.typing import Info, Key, Params

Init = Callable[[Key, Params, Request], tuple[Any, Any]]

_SEEN = ("now", "first", "taken", "stopped")


class StopRule(NamedTuple):
  """When a descent has reached its goal.

  Attributes:
    reached: `(now, first) -> bool`, of two measurements.
    measure: `(key, params, request) -> pytree of scalars`.
    every: steps between two measurements, at least 1.
  """

  reached: Callable[[Any, Any], jax.Array]
  measure: Callable[[Key, Params, Request], Any]
  every: int


class Watched(NamedTuple):
  """The state of a descent that is watched.

  Attributes:
    inner: the descent's own.
    info: of the last step taken.
    first: what was measured before the first step.
    now: what was measured last.
    taken: int32, the steps taken.
    stopped: scalar bool.
  """

  inner: Any
  info: Info
  first: Any
  now: Any
  taken: jax.Array
  stopped: jax.Array

  @property
  def params(self) -> Params:
    """The params of the inner state."""
    return self.inner.params


def stopping(init: Init, step: Step, rule: StopRule) -> tuple[Init, Step]:
  """The descent, frozen from the first measurement that has reached the goal.

  It is measured before the first step, after every `rule.every` steps and after
  the last, always with the same key, so that measurements differ by the params
  alone. Steps that are not taken repeat the info of the last one taken.

  Args:
    init: of any `descent.Descent`.
    step: of the same.
    rule: what to measure, and the goal.

  Returns:
    Another `init` and `step`, whose infos also hold `now` and `first`, the last
    and the first measurement, `taken`, the steps taken, and `stopped`, whether
    the goal was reached by then.

  Raises:
    ValueError: if `rule.every` is below 1.
  """
  validate.at_least(1, every=rule.every)

  @jax.jit
  def begin(key, params, request):
    inner, xs = init(key, params, request)
    num_steps = tree.size(xs)
    row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    info = jax.eval_shape(step, inner, row, (request, params))[1]
    measure_key = stage_key(key, "measure")
    first = rule.measure(measure_key, params, request)
    done = jnp.arange(1, num_steps + 1)
    return Watched(
      inner,
      jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), info),
      first,
      first,
      jnp.int32(0),
      jnp.asarray(rule.reached(first, first)),
    ), {
      "inner": xs,
      "due": (done % rule.every == 0) | (done == num_steps),
      "key": jnp.broadcast_to(measure_key, num_steps),
    }

  def move(state, x, data):
    def advance(state):
      inner, info = step(state.inner, x["inner"], data)
      taken = state.taken + 1
      state = state._replace(inner=inner, info=info, taken=taken)
      return jax.lax.cond(x["due"], look, lambda state: state, state)

    def look(state):
      now = rule.measure(x["key"], state.params, data[0])
      stopped = rule.reached(now, state.first)
      return state._replace(now=now, stopped=stopped)

    state = jax.lax.cond(state.stopped, lambda state: state, advance, state)
    seen = {name: getattr(state, name) for name in _SEEN}
    return state, {**state.info, **seen}

  return begin, move
