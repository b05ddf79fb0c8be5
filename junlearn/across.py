"""One function over many members: seeds, shadow models, clients.

Written once for a single member; the backend says how the members are run.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax

Backend = Literal["vmap", "map", "pmap"]


def fastest(members: int) -> Backend:
  """The backend that suits the devices at hand.

  A CPU gains nothing from batching, because one member already keeps it busy
  and a batch no longer fits its caches; and the devices that it can be divided
  into share its threads. Accelerators gain from both.
  """
  if jax.default_backend() == "cpu":
    return "map"
  devices = jax.local_device_count()
  return "pmap" if devices > 1 and members % devices == 0 else "vmap"


def across(
  function: Callable[..., Any],
  *,
  in_axes: Any = 0,
  backend: Backend = "vmap",
) -> Callable[..., Any]:
  """Maps a function over members; all backends give the same values.

  Args:
    function: of one member, with positional arguments.
    in_axes: as for `jax.vmap`, of 0 (one row a member) and None (shared).
    backend: "vmap" batches the members; "map" runs one after the other, in
      one program; "pmap" puts a block of `members / devices` members on each
      local device, and runs the block by "map" on CPU and by "vmap" elsewhere.

  Returns:
    A function whose results have the members on axis 0.

  Raises:
    ValueError: if the backend is unknown; when applied, if the devices do not
      divide the members.
  """
  if backend == "vmap":
    return jax.vmap(function, in_axes)
  if backend == "map":
    return _one_by_one(function, in_axes)
  if backend == "pmap":
    return _over_devices(function, in_axes)
  raise ValueError(
    f"across: backend is {backend!r}; it must be 'vmap', 'map' or 'pmap'."
  )


def _one_by_one(function, in_axes):
  def mapped(*arguments):
    leaves, structure = jax.tree.flatten(arguments)
    is_mapped = jax.tree.leaves(_is_mapped(in_axes, arguments))

    def member(rows):
      rows = iter(rows)
      pairs = zip(leaves, is_mapped, strict=True)
      own = [next(rows) if here else leaf for leaf, here in pairs]
      return function(*jax.tree.unflatten(structure, own))

    pairs = zip(leaves, is_mapped, strict=True)
    return jax.lax.map(member, [leaf for leaf, here in pairs if here])

  return mapped


def _over_devices(function, in_axes):
  on_cpu = jax.default_backend() == "cpu"
  block = across(function, in_axes=in_axes, backend="map" if on_cpu else "vmap")

  def mapped(*arguments):
    devices = jax.local_device_count()
    is_mapped = _is_mapped(in_axes, arguments)

    def split(here, leaf):
      if not here:
        return leaf
      if leaf.shape[0] % devices:
        raise ValueError(
          f"across: {leaf.shape[0]} members do not divide evenly over "
          f"{devices} devices; their number must be a multiple."
        )
      return leaf.reshape(devices, -1, *leaf.shape[1:])

    results = jax.pmap(
      block, in_axes=jax.tree.map(lambda here: 0 if here else None, is_mapped)
    )(*jax.tree.map(split, is_mapped, arguments))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

  return mapped


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
