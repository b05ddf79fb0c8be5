"""What a model of text generates: greedy decoding on all devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree, validate
from junlearn.audit.outputs import over_rows
from junlearn.language import Decoder
from junlearn.typing import Params


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
    tokens = jnp.full((n, num_tokens), eos, jnp.int32)

    def is_open(state):
      index, _, _, _, done = state
      return (index < num_tokens) & ~jnp.all(done)

    def step(state):
      index, inputs, cache, tokens, done = state
      logits, cache = decoder.step(params, inputs, cache)
      token = jnp.argmax(logits[:, -1], axis=-1).astype(jnp.int32)
      token = jnp.where(done, eos, token)
      tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, index))
      inputs = {
        "tokens": token[:, None],
        "positions": inputs["positions"] + 1,
        "segments": inputs["segments"],
      }
      return index + 1, inputs, cache, tokens, done | (token == eos)

    start = (jnp.int32(0), last, cache, tokens, jnp.zeros(n, bool))
    return jax.lax.while_loop(is_open, step, start)[3]

  return decode


def greedy(
  decoder: Decoder,
  params: Params,
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
  validate.at_least(1, num_tokens=num_tokens)
  is_padded = np.asarray(prompts["segments"])[:, -1] == 0
  if is_padded.any():
    raise ValueError(
      f"prompts end with padding (segment 0) in {is_padded.sum()} of {n} "
      "rows; they must be padded on the left and not be empty."
    )
  decode = _program(decoder, num_tokens, eos)
  return over_rows(decode, params, prompts, batch_size=batch_size)
