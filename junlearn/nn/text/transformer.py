"""A decoder of text, compatible with Llama and Qwen2 checkpoints.

Each block adds to the residual stream `[n, length, d]`

    x <- x + attention(norm(x)),    x <- x + down(silu(gate(y)) * up(y))

with y = norm(x), root-mean-square norms, rotary positions and grouped-query
attention. Inputs are tokens `[n, length]`, or a dict of `tokens`, `positions`
and `segments` where several records share a row or rows are padded on the
left: a token attends to earlier ones of its own segment. Norms, angles and the
softmax are computed in at least single precision.

Params are `{"params": {"embed_tokens", "layers", "norm", "lm_head"}}`. What
belongs to blocks has a leading axis `[layers, ...]`; with `scan_layers=False`
there is one entry `layers_0`, `layers_1`, ... a block instead.

Sources: H. Touvron et al., arXiv:2302.13971; A. Grattafiori et al.,
arXiv:2407.21783 (Llama 3); A. Yang et al., arXiv:2407.10671 (Qwen2).
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from junlearn import tree
from junlearn.language import Decoder
from junlearn.model import Model
from junlearn.nn.text import block, rope
from junlearn.nn.text.config import CONFIGS as CONFIGS
from junlearn.nn.text.config import Config as Config
from junlearn.nn.text.rope import Llama3Scaling as Llama3Scaling
from junlearn.typing import Inputs, Params


class Cache(NamedTuple):
  """What a decoder has read.

  Attributes:
    k: rotated keys `[layers, n, length, kv_heads, head_dim]`.
    v: values, likewise.
    segments: of the tokens read, int32 `[n, length]`.
    num_read: tokens of a row that have been read, a scalar.
  """

  k: jax.Array
  v: jax.Array
  segments: jax.Array
  num_read: jax.Array


@functools.cache
def model(config: Config) -> Model:
  """The decoder as a model of text; it has no randomness and no state.

  Raises:
    ValueError: when applied, if rows are longer than `config.max_length`.
  """
  module = Transformer(config)

  def init(key, inputs):
    return dict(module.init(key, inputs))

  def apply(params, inputs, key=None):
    del key
    return module.apply(params, inputs), params

  return Model(jax.jit(init), apply)


@functools.cache
def features(
  config: Config, layer: int
) -> Callable[[Params, Inputs], jax.Array]:
  """The residual stream after a block; later blocks are not computed.

  Args:
    config: of the model whose params are given.
    layer: 0 gives the embeddings, `config.num_layers` what the last norm
      reads.

  Returns:
    `(params, inputs) -> [n, length, d]`.

  Raises:
    ValueError: if there is no such layer.
  """
  if not 0 <= layer <= config.num_layers:
    raise ValueError(
      f"layer is {layer}; it must be between 0 and {config.num_layers}."
    )
  module = Transformer(config, depth=layer)

  def stream(params, inputs):
    if config.scan_layers:
      params = {
        name: _of_layers(part, lambda leaf: leaf[:layer])
        for name, part in params.items()
      }
    return module.apply(params, inputs, method="stream")[0]

  return stream


@functools.cache
def decoder(config: Config) -> Decoder:
  """The same model, keeping keys and values of what it has read.

  Plain tokens are taken as the next ones of segment 1, at the positions that
  follow the number of tokens read. Rows with padding on the left come as
  dicts, the padding in segment 0.

  Guarantees:
    Up to rounding, the logits of a sequence do not depend on how it is cut
    into steps. Tokens beyond the room of a cache give NaN.

  Raises:
    ValueError: from `init`, if the length exceeds `config.max_length`; from
      `step`, if more tokens are given at once than the cache has room for.
  """
  module = Transformer(config)

  def init(params, n, length):
    del params
    _require_fits(length, config.max_length, "config.max_length")
    shape = (
      *(config.num_layers, n, length),
      *(config.num_kv_heads, config.size_of_head),
    )
    zeros = jnp.zeros(shape, config.dtype)
    return Cache(
      zeros, zeros, jnp.zeros((n, length), jnp.int32), jnp.zeros((), jnp.int32)
    )

  def step(params, inputs, cache):
    return module.apply(params, inputs, cache, method="step")

  return Decoder(init, step)


def stack(params: Params) -> Params:
  """Params of blocks side by side (`layers_0`, ...) as stacked ones."""

  def one(part):
    names = sorted(
      (name for name in part if re.fullmatch(r"layers_\d+", name)),
      key=lambda name: int(name.removeprefix("layers_")),
    )
    rest = {name: part[name] for name in part if name not in names}
    return {**rest, "layers": tree.stack([part[name] for name in names])}

  return {name: one(part) for name, part in params.items()}


def unstack(params: Params) -> Params:
  """The inverse of `stack`."""

  def one(part):
    layers = {
      f"layers_{i}": tree.take(part["layers"], i)
      for i in range(tree.size(part["layers"]))
    }
    rest = {name: part[name] for name in part if name != "layers"}
    return {**rest, **layers}

  return {name: one(part) for name, part in params.items()}


def num_params(config: Config) -> int:
  """The number of params; none is made."""
  shapes = jax.eval_shape(
    model(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
  )
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


class Transformer(nn.Module):
  """The linen module behind `model`, `features` and `decoder`.

  Attributes:
    config: of the whole model.
    depth: blocks that are there, `config.num_layers` by default.
  """

  config: Config
  depth: int | None = None

  def setup(self):
    """Makes the parts; their names are those of the params."""
    config = self.config
    depth = config.num_layers if self.depth is None else self.depth
    self.embed_tokens = nn.Embed(
      config.vocab_size,
      config.hidden_size,
      dtype=config.dtype,
      param_dtype=config.param_dtype,
      embedding_init=nn.initializers.normal(config.hidden_size**-0.5),
    )
    # Within a scan, common subexpressions cannot undo the recomputation.
    one = (
      nn.remat(block.Block, prevent_cse=not config.scan_layers)
      if config.remat
      else block.Block
    )
    if config.scan_layers:
      self.layers: Any = nn.scan(
        one,
        variable_axes={"params": 0, "lora": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast, 0, nn.broadcast),
        length=depth,
      )(config)
    else:
      self.layers = [one(config) for _ in range(depth)]
    self.norm = block.Norm(config)
    if not config.tie_embeddings:
      self.lm_head = block.dense(config, config.vocab_size)

  def __call__(self, inputs: Inputs) -> jax.Array:
    """Logits `[n, length, vocabulary]`."""
    return self._logits(self.stream(inputs)[0])

  def step(self, inputs: Inputs, cache: Cache) -> tuple[jax.Array, Cache]:
    """Logits of the next tokens, and the cache with them."""
    x, new = self.stream(inputs, cache)
    assert new is not None  # one was given
    room = new.segments.shape[1] - new.num_read
    logits = self._logits(x)
    return jnp.where(room >= 0, logits, jnp.nan), new

  def stream(
    self, inputs: Inputs, cache: Cache | None = None
  ) -> tuple[jax.Array, Cache | None]:
    """The residual stream after the blocks, and the cache if one is given."""
    config = self.config
    start = jnp.zeros((), jnp.int32) if cache is None else cache.num_read
    tokens, positions, segments = _parts(inputs, start)
    length = tokens.shape[1]
    _require_fits(length, config.max_length, "config.max_length")
    if cache is None:
      keys = segments
    else:
      _require_fits(length, cache.segments.shape[1], "the room of the cache")
      keys = jax.lax.dynamic_update_slice(
        cache.segments,
        jnp.broadcast_to(segments, tokens.shape),
        (jnp.zeros_like(start), start),
      )
    slots = jnp.arange(keys.shape[1], dtype=jnp.int32)
    order = start + slots[:length, None] >= slots
    mask = order & (segments[:, :, None] == keys[:, None, :])
    lowest = 0.5 * jnp.finfo(config.upcast_dtype).min
    bias = jnp.where(mask, 0, lowest).astype(config.upcast_dtype)
    angles = rope.angles(
      positions,
      config.size_of_head,
      config.rope_theta,
      config.rope_scaling,
      config.upcast_dtype,
    )
    # Dense layers read the tokens of all rows below one another, see `block`.
    x = self.embed_tokens(tokens.reshape(-1))
    past = None if cache is None else (cache.k, cache.v)
    x, new = self._blocks(x, angles, bias, past, start)
    x = x.reshape(*tokens.shape, -1)
    if past is None:
      return x, None
    k, v = (
      jax.lax.dynamic_update_slice_in_dim(old, part, start, axis=2)
      for old, part in zip(past, new, strict=True)
    )
    return x, Cache(k, v, keys, start + length)

  def _blocks(self, x, angles, bias, past, start):
    if self.config.scan_layers:
      if self.depth == 0:
        return x, past
      return self.layers(x, angles, bias, past, start)
    new = []
    for i, layer in enumerate(self.layers):
      x, part = layer(x, angles, bias, tree.take(past, i), start)
      new.append(part)
    return x, tree.stack(new) if past is not None else None

  def _logits(self, x):
    shape = x.shape[:-1]
    x = self.norm(x.reshape(-1, x.shape[-1]))
    tied = self.config.tie_embeddings
    logits = self.embed_tokens.attend(x) if tied else self.lm_head(x)
    return logits.astype(self.config.upcast_dtype).reshape(*shape, -1)


def _parts(inputs, start):
  """Tokens, positions and segments, the latter two with one row if plain."""
  if isinstance(inputs, dict):
    return inputs["tokens"], inputs["positions"], inputs["segments"]
  length = inputs.shape[1]
  positions = start + jnp.arange(length, dtype=jnp.int32)[None]
  return inputs, positions, jnp.ones((1, length), jnp.int32)


def _require_fits(length, limit, name):
  if length > limit:
    raise ValueError(
      f"sequences have {length} tokens; at most {limit} are allowed, which is "
      f"{name}."
    )


def _of_layers(part, function):
  """One collection with the function applied to its stacked leaves."""
  if "layers" not in part:
    return part
  return {**part, "layers": jax.tree.map(function, part["layers"])}
