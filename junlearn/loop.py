"""How steps are repeated.

    Loop: (step, carry, xs, data) -> (carry, infos)
    step: (carry, x, data) -> (carry, info)

`xs` has the steps on axis 0, `data` is the same for all steps, `infos` are the
steps' infos stacked. Both loops give the same result up to rounding. A carry
with a true attribute `stopped` says that further steps would change nothing
and repeat the last info (see `early_stopping`); `host` then spares itself their
calls.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree, validate
from junlearn.typing import Info, PyTree

Step = Callable[[Any, Any, Any], tuple[Any, Info]]
Loop = Callable[[Step, Any, Any, Any], tuple[Any, Info]]

_TRACED = "host: cannot run under jit, vmap or pmap; use scan()."


class NonFiniteError(ArithmeticError):
  """A step's info held a NaN or an infinity."""


class Checkpoint(Protocol):
  """Where `host` keeps its progress."""

  def restore(self, carry: Any, infos: Info) -> tuple[int, Any, Any]:
    """Steps done, carry and infos; `(0, carry, infos)` at a fresh start."""

  def save(self, step: int, carry: Any, infos: Info) -> None:
    """Keeps the state after `step` steps, replacing what was kept."""


def scan() -> Loop:
  """One compiled program, also inside jit, vmap and pmap."""

  def loop(step, carry, xs, data):
    # A trace in progress is compiled by whoever began it; caching a step made
    # in it would keep its tracers.
    if _is_traced((carry, xs, data)):
      return _scan(step, carry, xs, data)
    return _scanned(step)(carry, xs, data)

  return loop


def _scan(step, carry, xs, data):
  return jax.lax.scan(lambda c, x: step(c, x, data), carry, xs)


@functools.lru_cache(maxsize=64)
def _scanned(step: Step):
  """The jitted scan: `lax.scan` alone would compile again at every call."""
  return jax.jit(functools.partial(_scan, step))


def _is_traced(values: PyTree) -> bool:
  return any(
    isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values)
  )


def _indexed(step: Step):
  return lambda carry, index, xs, data: step(carry, tree.take(xs, index), data)


@functools.lru_cache(maxsize=64)
def _compiled(step: Step):
  """The jitted, donated step, compiled once however often it is looped."""
  return jax.jit(_indexed(step), donate_argnums=0)


def host(
  *,
  every: int = 50,
  watch: Callable[[int, int, Any, Info], None] | None = None,
  checkpoint: Checkpoint | None = None,
  compiled: bool = True,
) -> Loop:
  """A Python loop over one jitted, donated step.

  Args:
    every: steps between two looks at the infos, which is when `watch` and
      `checkpoint` are called; also called after the last step.
    watch: called with `(steps done, steps in all, carry, infos)`; the infos
      are NumPy arrays whose rows are filled up to the steps done.
    checkpoint: restored from at the start and saved to; the continued run
      takes the same steps as an uninterrupted one.
    compiled: whether to jit the step. False for members that communicate over
      several processes (`across` by "pmap"), whose step is a program already;
      it then takes its first step twice, to see what its info is.

  Raises:
    ValueError: if `every` is below 1; when applied inside jit, vmap or pmap.
    NonFiniteError: at the first look after a non-finite info; what was
      checkpointed before stays.
  """
  validate.at_least(1, every=every)

  def loop(step, carry, xs, data):
    if _is_traced((carry, xs, data)):
      raise ValueError(_TRACED)
    num_steps = tree.size(xs)
    if compiled:
      take = _compiled(step)
      carry = jax.tree.map(jnp.copy, carry)  # the first step donates it
      x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
      row = jax.eval_shape(step, carry, x, data)[1]
    else:
      take = _indexed(step)
      row = take(carry, 0, xs, data)[1] if num_steps else {}
    infos = jax.tree.map(
      lambda leaf: np.zeros((num_steps, *leaf.shape), leaf.dtype), row
    )
    start = 0
    if checkpoint is not None:
      start, carry, infos = checkpoint.restore(carry, infos)

    def look(done):
      if watch is not None:
        watch(done, num_steps, carry, infos)
      if checkpoint is not None:
        checkpoint.save(done, carry, infos)

    pending = []
    for index in range(start, num_steps):
      carry, info = take(carry, np.int32(index), xs, data)
      if _is_traced(info):  # the step itself holds a traced value
        raise ValueError(_TRACED)
      pending.append(info)
      done = index + 1
      if done % every and done < num_steps:
        continue
      first = done - len(pending)
      for offset, row in enumerate(jax.device_get(pending)):
        _write_row(infos, first + offset, row)
      pending = []
      _check_finite(infos, first, done)
      look(done)
      if done < num_steps and np.all(getattr(carry, "stopped", False)):
        for table in jax.tree.leaves(infos):
          table[done:] = table[done - 1]
        look(num_steps)
        break
    return carry, jax.tree.map(jnp.asarray, infos)

  return loop


def _write_row(infos, index, row):
  for table, value in zip(
    jax.tree.leaves(infos), jax.tree.leaves(row), strict=True
  ):
    table[index] = value


def _check_finite(infos, first, done):
  for path, table in jax.tree_util.tree_flatten_with_path(infos)[0]:
    rows = table[first:done].reshape(done - first, -1)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
      name, step = tree.path_name(path), first + int(np.argmax(bad)) + 1
      hint = "a smaller learning rate may help"
      if name == "gradient_norm":  # see `View.must_move`
        hint = (
          f"no gradient reaches what is free (is the model adapted?), or {hint}"
        )
      raise NonFiniteError(f"{name} is not finite at step {step}; {hint}.")
