"""A model is a pair of pure functions over one pytree.

Batch statistics live in that pytree beside the weights, so that a checkpoint,
a hash or a client's message holds everything that prediction depends on.
"""

import inspect
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx

from junlearn import tree
from junlearn.typing import Inputs, Key, Outputs, Params

_TRAIN_ARGUMENTS = ("train", "training")
_EVAL_ARGUMENTS = ("deterministic", "use_running_average")


class Model(NamedTuple):
  """A model as every method sees it.

  Params that are a dict with a key `params` follow flax's convention: what is
  below that key is learned, everything beside it is state that `apply`
  refreshes in training mode. Any other pytree is learned as a whole.

  Attributes:
    init: `(key, inputs) -> params`; `inputs` `[n, ...]` gives shapes only.
    apply: `(params, inputs, key=None) -> (outputs, params)`. Without a key:
      evaluation (running statistics, no dropout), params returned as given.
      With a key: training mode, and the returned params carry the refreshed
      batch statistics.
  """

  init: Callable[[Key, Inputs], Params]
  apply: Callable[..., tuple[Outputs, Params]]


def from_function(
  apply: Callable[[Params, Inputs], Outputs],
  init: Callable[[Key, Inputs], Params] | None = None,
) -> Model:
  """A model from `apply(params, inputs) -> outputs`, deterministic.

  Args:
    apply: a pure function of any pytree of params.
    init: `(key, inputs) -> params`; only retraining needs it.
  """

  def no_init(key, inputs):
    raise ValueError(
      "from_function: init was not given, but a method asked for fresh params."
    )

  return Model(
    init=init or no_init,
    apply=lambda params, inputs, key=None: (apply(params, inputs), params),
  )


def from_linen(module: linen.Module) -> Model:
  """A model from a `flax.linen` module.

  The params are the module's variables, `{"params": ..., "batch_stats": ...}`.
  If the module's `__call__` has an argument `train` or `training`
  (`deterministic` or `use_running_average`), it is set (unset) in training
  mode. Dropout reads the stream `dropout`.

  Args:
    module: a linen module whose `__call__` takes the inputs first.
  """
  arguments = inspect.signature(type(module).__call__).parameters

  def mode(train: bool) -> dict[str, Any]:
    switches = {name: train for name in _TRAIN_ARGUMENTS if name in arguments}
    for name in _EVAL_ARGUMENTS:
      if name in arguments:
        switches[name] = not train
    return switches

  def init(key, inputs):
    return dict(module.init(key, inputs, **mode(False)))

  def apply(params, inputs, key=None):
    if key is None:
      return module.apply(params, inputs, **mode(False)), params
    statistics = [name for name in params if name != "params"]
    outputs, updated = module.apply(
      params,
      inputs,
      rngs={"dropout": key},
      mutable=statistics,
      **mode(True),
    )
    return outputs, {**params, **updated}

  # One program, compiled once for all that draw fresh params.
  return Model(jax.jit(init), apply)


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
  """A model from a `flax.nnx` module's constructor.

  The params are `{"params": ..., "state": ...}`: the `nnx.Param` variables and
  all others but the random streams, as plain dicts. Training mode is
  `module.train()`; every random stream restarts from the key given.

  Args:
    make: builds the module, e.g. `lambda rngs: Net(10, rngs=rngs)`.
  """

  def split(module):
    _, *parts = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return parts

  module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
  weights, streams, state = split(module)
  graphs = {}
  for train in (True, False):
    (module.train if train else module.eval)()
    graphs[train] = nnx.graphdef(module)

  def fill(abstract, values):
    filled = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(filled, values)
    return filled

  def fresh_streams(key):
    def stream(name, leaf):
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.fold_in(key, zlib.crc32(name.encode()))
      return jnp.zeros(leaf.shape, leaf.dtype)

    return fill(streams, tree.map_leaves(stream, nnx.to_pure_dict(streams)))

  def init(key, inputs):
    del inputs  # nnx modules know their shapes
    weights, _, state = split(make(nnx.Rngs(key)))
    return {
      "params": nnx.to_pure_dict(weights),
      "state": nnx.to_pure_dict(state),
    }

  def apply(params, inputs, key=None):
    train = key is not None
    module = nnx.merge(
      graphs[train],
      fill(weights, params["params"]),
      fresh_streams(key if train else jax.random.key(0)),
      fill(state, params["state"]),
    )
    outputs = module(inputs)
    if not train:
      return outputs, params
    _, _, updated = split(module)
    return outputs, {**params, "state": nnx.to_pure_dict(updated)}

  return Model(init, apply)


def freeze_statistics(model: Model) -> Model:
  """The model in evaluation mode even while it is trained.

  Batch statistics stay as they are and dropout is off; small or adversarial
  training sets then cannot shift the normalization of all other inputs.
  """
  return model._replace(
    apply=lambda params, inputs, key=None: model.apply(params, inputs)
  )
