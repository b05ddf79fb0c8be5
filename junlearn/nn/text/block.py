"""The parts of a decoder's block: norm, attention, gated feed-forward layer.

They read the tokens of all sequences below one another, `[n * length, d]`: the
gradient of a dense layer is then one product. With three axes XLA on CPU takes
twice as long for it.

Arguments of the same name are the same everywhere: `angles` are those of
`rope.angles`; `bias` `[n or 1, length, keys]` is added to the scores of
attention; `past` are keys and values `[n, room, kv_heads, head_dim]`, in which
the new ones are written from place `start` on, or None.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from junlearn.nn.text import rope
from junlearn.nn.text.config import Config

KeysAndValues = tuple[jax.Array, jax.Array] | None


class Block(nn.Module):
  """Attention and a feed-forward layer, each behind a norm."""

  config: Config

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    angles: tuple[jax.Array, jax.Array],
    bias: jax.Array,
    past: KeysAndValues,
    start: jax.Array,
  ) -> tuple[jax.Array, KeysAndValues]:
    """The residual stream, and the new keys and values if there is a past."""
    config = self.config
    y = Norm(config, name="input_layernorm")(x)
    y, new = Attention(config, name="self_attn")(y, angles, bias, past, start)
    x = x + y
    y = Norm(config, name="post_attention_layernorm")(x)
    return x + MLP(config, name="mlp")(y), new


class Attention(nn.Module):
  """Rotary grouped-query attention."""

  config: Config

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    angles: tuple[jax.Array, jax.Array],
    bias: jax.Array,
    past: KeysAndValues,
    start: jax.Array,
  ) -> tuple[jax.Array, KeysAndValues]:
    """As `Block`."""
    config = self.config

    def project(name, heads):
      y = dense(
        config,
        heads * config.size_of_head,
        name=name,
        use_bias=config.attention_bias,
      )(x)
      return y.reshape(-1, bias.shape[1], heads, config.size_of_head)

    q = rope.rotate(project("q_proj", config.num_heads), angles)
    k = rope.rotate(project("k_proj", config.num_kv_heads), angles)
    v = project("v_proj", config.num_kv_heads)
    new = None
    if past is not None:
      new = k, v
      k, v = (
        jax.lax.dynamic_update_slice_in_dim(old, part, start, axis=1)
        for old, part in zip(past, new, strict=True)
      )
    y = _attend(q, k, v, bias).reshape(len(x), -1)
    return dense(config, config.hidden_size, name="o_proj")(y), new


class MLP(nn.Module):
  """`down(silu(gate(x)) * up(x))`."""

  config: Config

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """`[..., d]` for `[..., d]`."""
    config = self.config
    gate = dense(config, config.intermediate_size, name="gate_proj")(x)
    up = dense(config, config.intermediate_size, name="up_proj")(x)
    y = jax.nn.silu(gate) * up
    return dense(config, config.hidden_size, name="down_proj")(y)


class Norm(nn.Module):
  """`x / sqrt(mean(x^2) + eps) * scale`; linen's own mixes dtypes."""

  config: Config

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """In at least single precision, given in the dtype of x."""
    config = self.config
    scale = self.param(
      "scale", nn.initializers.ones, x.shape[-1:], config.param_dtype
    )
    upcast = x.astype(config.upcast_dtype)
    square = jnp.mean(upcast * upcast, axis=-1, keepdims=True)
    y = upcast * jax.lax.rsqrt(square + config.rms_norm_eps)
    return (y * scale.astype(y.dtype)).astype(x.dtype)


def _attend(q, k, v, bias):
  """Each query's mean of values `[n, t, heads * head_dim]`.

  Heads of one group share keys and values, which are not repeated. As fast on
  CPU as `jax.nn.dot_product_attention` or faster, whose dtypes are not strict.
  """
  n, t, heads, size = q.shape
  k, v = (x.swapaxes(1, 2) for x in (k, v))
  q = q.swapaxes(1, 2).reshape(n, k.shape[1], -1, t, size)
  scores = jnp.einsum(
    "ngrtd,ngsd->ngrts", q, k, preferred_element_type=bias.dtype
  )
  scores = scores * size**-0.5 + bias[:, None, None]
  weights = jax.nn.softmax(scores).astype(v.dtype)
  y = jnp.einsum("ngrts,ngsd->ngrtd", weights, v)
  return y.reshape(n, heads, t, size).swapaxes(1, 2)


def dense(
  config: Config, size: int, *, use_bias: bool = False, name: str | None = None
) -> nn.Dense:
  """A dense layer in the dtypes of the config."""
  return nn.Dense(
    size,
    use_bias=use_bias,
    dtype=config.dtype,
    param_dtype=config.param_dtype,
    name=name,
  )
