"""What a model of text says: greedy decoding on all devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree
from junlearn.audit import rows
from junlearn.language import Decoder


@functools.lru_cache(maxsize=64)
def _program(decoder: Decoder, num_tokens: int, eos: int):
  @jax.jit
  def decode(params, prompts):
    n, length = prompts["tokens"].shape
    # The last token of the prompt is read by the first step of the loop.
    cache = decoder.init(params, n, length + num_tokens - 1)
    if length > 1:
      before = jax.tree.map(lambda leaf: leaf[:, :-1], prompts)
      _, cache = decoder.step(params, before, cache)
    last = jax.tree.map(lambda leaf: leaf[:, -1:], prompts)
    spoken = jnp.full((n, num_tokens), eos, jnp.int32)

    def is_open(state):
      index, _, _, _, done = state
      return (index < num_tokens) & ~jnp.all(done)

    def step(state):
      index, inputs, cache, spoken, done = state
      logits, cache = decoder.step(params, inputs, cache)
      token = jnp.argmax(logits[:, -1], axis=-1).astype(jnp.int32)
      token = jnp.where(done, eos, token)
      spoken = jax.lax.dynamic_update_slice(spoken, token[:, None], (0, index))
      inputs = {
        "tokens": token[:, None],
        "positions": inputs["positions"] + 1,
        "segments": inputs["segments"],
      }
      return index + 1, inputs, cache, spoken, done | (token == eos)

    start = (jnp.int32(0), last, cache, spoken, jnp.zeros(n, bool))
    return jax.lax.while_loop(is_open, step, start)[3]

  return decode


def greedy(
  decoder: Decoder,
  params: Any,
  prompts: Any,
  *,
  num_tokens: int,
  eos: int,
  batch_size: int = 64,
) -> np.ndarray:
  """The likeliest next token, again and again, until the end token.

  One compiled program reads the prompts of a batch and goes on until all its
  rows have ended. The rows of a batch are divided over the local devices.

  Args:
    decoder: of the model; equal decoders share compiled programs.
    params: of the model; may be divided over the local devices.
    prompts: dict of `tokens`, `positions` and `segments`, int32 `[n, length]`,
      padded on the left: the last token of each row is the one to go on from.
    num_tokens: tokens to generate, at least 1.
    eos: the end token.
    batch_size: rows at a time, rounded up to a multiple of the devices.

  Returns:
    int32 `[n, num_tokens]`; behind the first end token only end tokens.

  Raises:
    ValueError: if there are no prompts, one is empty or padded on the right,
      or `num_tokens` is below 1.
  """
  n = tree.size(prompts)
  if n == 0:
    raise ValueError("greedy: prompts is empty; at least one is needed.")
  if num_tokens < 1:
    raise ValueError(f"num_tokens is {num_tokens}; it must be at least 1.")
  is_padded = np.asarray(prompts["segments"])[:, -1] == 0
  if is_padded.any():
    raise ValueError(
      f"prompts end with padding (segment 0) in {is_padded.sum()} of {n} "
      "rows; they must be padded on the left and not be empty."
    )
  decode = _program(decoder, num_tokens, eos)
  return rows.apply(decode, params, prompts, batch_size=batch_size)
