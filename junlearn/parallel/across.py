"""One function over many members: seeds, shadow models, clients.

Written once for a single member; the backend says how the members are run.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from junlearn import validate
from junlearn.typing import PyTree

Backend = Literal["vmap", "map", "pmap"]

# The axes that members communicate over, for `jax.lax` collectives.
AXES = ("devices", "members")


def fastest(members: int) -> Backend:
  """The backend that suits the devices at hand.

  A CPU gains nothing from batching, because one member already keeps it busy
  and a batch no longer fits its caches; and the devices that it can be divided
  into have one set of threads. Accelerators gain from both.
  """
  if jax.default_backend() == "cpu":
    return "map"
  devices = jax.local_device_count()
  return "pmap" if devices > 1 and members % devices == 0 else "vmap"


def across(
  function: Callable[..., Any],
  *,
  in_axes: PyTree = 0,
  backend: Backend = "vmap",
  collective: bool = False,
) -> Callable[..., Any]:
  """Maps a function over members; all backends give the same values.

  With `collective=True` the members run side by side and may communicate:
  inside the function, `jax.lax.psum(x, AXES)` is the sum over all members,
  `jax.lax.axis_index(AXES)` the member's number, and a `while_loop` whose
  predicate is such a sum stops for all members at once. The axis "members" runs
  within the block of a device, "devices" over the devices of all processes;
  gather and permute along one of them at a time (see `gather`). Reverse-mode
  derivatives taken inside the function see the values of all members summed.

  Args:
    function: of one member, with positional arguments.
    in_axes: as for `jax.vmap`, of 0 (one row a member) and None (shared).
    backend: "vmap" batches the members; "map" runs one after the other, in
      one program; "pmap" puts a block of `members / devices` members on each
      local device, and runs the block by "map" on CPU and by "vmap" elsewhere.
      In a job of several processes each passes the members of its own devices.
    collective: whether the function uses collectives over `AXES`. Blocks are
      then batched on every device; without it the axes have no names, and
      nothing is paid for them.

  Returns:
    A function whose results have the members on axis 0.

  Raises:
    ValueError: if the backend is unknown, or is "map" with `collective`; when
      applied, if the devices do not divide the members, or if members of
      several processes would communicate within a `jit`.
  """
  validate.one_of(get_args(Backend), backend=backend)
  if backend == "map" and collective:
    raise ValueError(
      "backend is 'map', which runs one member at a time; with "
      "collective it must be 'vmap' or 'pmap'."
    )
  if collective:
    block = jax.vmap(function, in_axes, axis_name=AXES[1])
  elif backend == "map" or (
    backend == "pmap" and jax.default_backend() == "cpu"
  ):
    block = _one_by_one(function, in_axes)
  else:
    block = jax.vmap(function, in_axes)
  if backend == "pmap":
    outer = _pmap_over_processes if collective else jax.pmap
    return _in_blocks(block, in_axes, outer, jax.local_device_count)
  if collective:
    return _in_blocks(block, in_axes, jax.vmap, lambda: 1)
  return block


def data_parallel(function: Callable[..., Any]) -> Callable[..., Any]:
  """One piece of work for all local devices, which divide it themselves.

  The function runs on each device, with the device's number, from 0, before the
  given arguments; `jax.lax.pmean(x, AXES[0])` is the mean over devices. What it
  returns must be the same on every device, and is returned once, replicated.
  It may be called in jit and scans, where it is part of the one program.
  """
  mapped = functools.cache(
    # JAX asks how many arguments there are before it sees one.
    lambda number: jax.pmap(
      function,
      axis_name=AXES[0],
      in_axes=(0, *(None,) * number),
      out_axes=None,
    )
  )

  def shared(*arguments):
    numbers = jnp.arange(jax.local_device_count())
    return mapped(len(arguments))(numbers, *arguments)

  return shared


def gather(x: PyTree) -> PyTree:
  """All members' values, in order: every leaf `[...]` becomes `[members, ...]`.

  For the body of a function mapped with `collective=True`.
  """
  devices, members = AXES

  def leaf(x):
    rows = jax.lax.all_gather(jax.lax.all_gather(x, members), devices)
    return rows.reshape(-1, *x.shape)

  return jax.tree.map(leaf, x)


def _one_by_one(function, in_axes):
  def mapped(*arguments):
    leaves, structure = jax.tree.flatten(arguments)
    is_mapped = jax.tree.leaves(_is_mapped(in_axes, arguments))

    def member(rows):
      rows = iter(rows)
      pairs = zip(leaves, is_mapped, strict=True)
      row = [next(rows) if here else leaf for leaf, here in pairs]
      return function(*jax.tree.unflatten(structure, row))

    pairs = zip(leaves, is_mapped, strict=True)
    return jax.lax.map(member, [leaf for leaf, here in pairs if here])

  return mapped


def _in_blocks(block, in_axes, outer, devices):
  """Maps blocks of members by `outer`; `devices` is asked when applied."""

  def mapped(*arguments):
    count = devices()
    is_mapped = _is_mapped(in_axes, arguments)

    def split(here, leaf):
      if not here:
        return leaf
      if leaf.shape[0] % count:
        raise ValueError(
          f"{leaf.shape[0]} members do not divide evenly over "
          f"{count} devices; their number must be a multiple."
        )
      return leaf.reshape(count, -1, *leaf.shape[1:])

    results = outer(
      block,
      in_axes=jax.tree.map(lambda here: 0 if here else None, is_mapped),
      axis_name=AXES[0],
    )(*jax.tree.map(split, is_mapped, arguments))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

  return mapped


def _pmap_over_processes(block, **options):
  mapped = jax.pmap(block, **options)

  def checked(*arguments):
    if jax.process_count() > 1 and any(
      isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)
    ):
      # There pmap's axis ends at this process, and sums are silently partial.
      raise ValueError(
        "members of several processes cannot communicate within jit; the "
        "mapped function must be called outside it (pmap compiles by itself)."
      )
    return mapped(*arguments)

  return checked


def _is_mapped(in_axes, arguments):
  """For every leaf of the arguments, whether it has a row for each member."""
  if not isinstance(in_axes, tuple):
    in_axes = (in_axes,) * len(arguments)
  return jax.tree.map(
    lambda axis, value: jax.tree.map(lambda _: axis is not None, value),
    in_axes,
    arguments,
    is_leaf=lambda axis: axis is None,
  )
