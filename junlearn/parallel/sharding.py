"""Models that do not fit one device: params divided over a mesh.

A mesh has three axes: "data" divides the batch, "fsdp" the batch and the
params, "tensor" the params alone. A `Layout` says where each leaf lies; what is
computed from placed arrays follows them, so the same transforms run on one
device and on many (see `descent.gradient_descent`).
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from junlearn import tree
from junlearn.typing import Examples, Params, PyTree

AXES = ("data", "fsdp", "tensor")
# Those that divide the rows of a batch.
BATCH = ("data", "fsdp")

# (regular expression, spec of the last axes of the leaves whose name it finds)
Rules = Sequence[tuple[str, PartitionSpec]]


def mesh(axes: str) -> Mesh:
  """A mesh of all devices, such as `mesh("data=2,fsdp=4")`.

  Args:
    axes: sizes of "data", "fsdp" and "tensor", in any order; 1 where not named.

  Raises:
    ValueError: if an axis is unknown, named twice or no positive number, or
      the product is not the number of devices.
  """
  sizes = dict.fromkeys(AXES, 1)
  named = []
  for part in axes.split(","):
    name, _, size = (text.strip() for text in part.partition("="))
    if (
      name not in AXES or name in named or not re.fullmatch("[1-9][0-9]*", size)
    ):
      raise ValueError(
        f"axes is {axes!r}, where {part!r} is no size of an axis; allowed are "
        f"{', '.join(AXES)}, each once, as in 'data=2,fsdp=4'."
      )
    named.append(name)
    sizes[name] = int(size)
  product = math.prod(sizes.values())
  if product != jax.device_count():
    raise ValueError(
      f"axes is {axes!r}, which makes {product}; it must be the number of "
      f"devices, {jax.device_count()}."
    )
  return _make_mesh(sizes.values(), jax.devices())


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where params, optimizer state and batches lie on a mesh.

  The first rule that finds the leaf's name holds. Its spec is for the last axes
  of the leaf, so that it does for stacked layers too; a mesh axis that does not
  divide a dimension is left out there. Leaves that no rule finds have their
  largest divisible dimension divided over "fsdp". The names of optimizer state
  end with those of the params, so patterns should not be bound at the start.

  A layout is a function of `(name, shape)`, as `pretrained.load` takes it.

  Attributes:
    mesh: see `mesh`.
    rules: in order.
  """

  mesh: Mesh
  rules: Rules = ()

  @property
  def shards(self) -> int:
    """How many ways a batch is divided."""
    return math.prod(self.mesh.shape[axis] for axis in BATCH)

  def __call__(self, name: str, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of the leaf called `name`."""
    for pattern, spec in self.rules:
      if re.search(pattern, name):
        return self._fitting(name, spec, shape)
    return self._automatic(shape)

  def place(self, params: Params) -> Params:
    """A pytree in its place; within jit, a constraint."""
    return tree.map_leaves(
      lambda name, leaf: _put(leaf, self(name, leaf.shape)), params
    )

  def place_rows(self, examples: Examples) -> Examples:
    """Examples with their rows divided over the axes of the batch."""
    sharding = NamedSharding(self.mesh, PartitionSpec(BATCH))
    return jax.tree.map(lambda leaf: _put(leaf, sharding), examples)

  def _fitting(self, name, spec, shape):
    if len(spec) > len(shape):
      if not shape:  # counts and the like, in the state of an optimizer
        return NamedSharding(self.mesh, PartitionSpec())
      raise ValueError(
        f"the rule for {name} has the spec {spec}; the leaf has shape {shape} "
        "and can have no more parts than axes."
      )
    parts = (*(None,) * (len(shape) - len(spec)), *spec)
    return NamedSharding(
      self.mesh,
      PartitionSpec(
        *(
          part if size % self._ways(part) == 0 else None
          for part, size in zip(parts, shape, strict=True)
        )
      ),
    )

  def _automatic(self, shape):
    parts: list[str | None] = [None] * len(shape)
    divisible = [
      axis for axis, size in enumerate(shape) if size % self._ways("fsdp") == 0
    ]
    if divisible:
      parts[max(divisible, key=lambda axis: shape[axis])] = "fsdp"
    return NamedSharding(self.mesh, PartitionSpec(*parts))

  def _ways(self, part):
    names = (part,) if isinstance(part, str) else part or ()
    return math.prod(self.mesh.shape[name] for name in names)


def replicated() -> Layout:
  """Every leaf whole on every local device; batches are shared."""
  devices = jax.local_devices()
  return Layout(
    _make_mesh((len(devices), 1, 1), devices), (("", PartitionSpec()),)
  )


def beside(placed: PyTree, examples: Examples) -> Examples:
  """Examples, whole, on all devices of the mesh on which `placed` lies.

  What every step reads is so moved once. Within jit, or where nothing was
  placed by a layout, the examples are returned as they are.
  """
  for leaf in jax.tree.leaves(placed):
    if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
      sharding = leaf.sharding
      if isinstance(sharding, NamedSharding) and (
        sharding.mesh.axis_names == AXES
      ):
        return jax.device_put(
          examples, NamedSharding(sharding.mesh, PartitionSpec())
        )
  return examples


def _make_mesh(sizes, devices):
  return jax.make_mesh(
    tuple(sizes),
    AXES,
    axis_types=(AxisType.Auto,) * len(AXES),
    devices=devices,
  )


def _put(leaf, sharding):
  if isinstance(leaf, jax.core.Tracer):
    return jax.lax.with_sharding_constraint(leaf, sharding)
  return jax.device_put(leaf, sharding)
