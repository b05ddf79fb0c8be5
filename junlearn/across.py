"""One function over many members: seeds, shadow models, clients.

Written once for a single member; `vmap` runs all on one device, `pmap` spreads
them over devices, a block of members on each.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax

Backend = Literal["vmap", "pmap"]


def across(
  function: Callable[..., Any],
  *,
  in_axes: Any = 0,
  backend: Backend = "vmap",
) -> Callable[..., Any]:
  """Maps a function over members; both backends give the same values.

  Args:
    function: of one member, with positional arguments.
    in_axes: as for `jax.vmap`, of 0 (one row a member) and None (shared).
    backend: "vmap", or "pmap" to put blocks of `members / devices` members on
      each local device (vmap inside pmap).

  Returns:
    A function whose results have the members on axis 0.

  Raises:
    ValueError: if the backend is unknown; when applied, if the devices do not
      divide the members.
  """
  if backend not in ("vmap", "pmap"):
    raise ValueError(
      f"across: backend is {backend!r}; it must be 'vmap' or 'pmap'."
    )
  block = jax.vmap(function, in_axes)
  if backend == "vmap":
    return block

  def mapped(*arguments):
    devices = jax.local_device_count()
    axes = in_axes
    if not isinstance(axes, tuple):
      axes = (axes,) * len(arguments)
    is_mapped = jax.tree.map(
      lambda axis, value: jax.tree.map(lambda _: axis is not None, value),
      axes,
      arguments,
      is_leaf=lambda axis: axis is None,
    )

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
