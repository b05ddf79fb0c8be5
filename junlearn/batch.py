"""Mini-batches as a table of row numbers, drawn before the steps begin.

A table depends on the key and on static sizes alone, so both loops read the
same batches and an interrupted run continues with the ones it would have had.
"""

import functools
import math

import jax
import jax.numpy as jnp

from junlearn import tree
from junlearn.typing import Examples, Key


@functools.partial(jax.jit, static_argnames=("num_steps", "batch_size"))
def indices(
  key: Key, examples: Examples, *, num_steps: int, batch_size: int
) -> jax.Array:
  """Row numbers `[num_steps, batch_size]` by random reshuffling.

  A round is one random order of the present examples (all, or those whose
  `weight` is not 0), cycled to `n` draws so that shapes do not depend on the
  weights. Without weights a round is an epoch; with `m` of `n` present every
  example is drawn `floor(n/m)` or `ceil(n/m)` times a round. A round's end may
  fall inside a batch. Absent examples are never drawn while one is present.

  Args:
    key: PRNG key.
    examples: `n` examples; a dict may hold `weight` `[n]` of zeros and ones.
    num_steps: batches.
    batch_size: rows a batch.

  Raises:
    ValueError: if there are no examples.
  """
  n = tree.size(examples)
  if n == 0:
    raise ValueError("indices: examples is empty; at least one is needed.")
  draws = num_steps * batch_size
  noise = jax.random.uniform(key, (math.ceil(draws / n), n))
  position = jnp.arange(n)
  if isinstance(examples, dict) and "weight" in examples:
    present = examples["weight"] > 0
    noise = noise + jnp.where(present, 0.0, 1.0)  # absent rows sort last
    position = position % jnp.maximum(jnp.sum(present), 1)
  order = jnp.argsort(noise, axis=1)[:, position]
  return order.reshape(-1)[:draws].reshape(num_steps, batch_size)
