"""A decoder's training and decoding, each against the obvious alternative."""

import copy
import functools
from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from experiments.bench import timing
from experiments.bench.eager import decoder, threads
from junlearn import descent, language, loop, objective
from junlearn.audit.text import generation
from junlearn.nn.text import transformer
from junlearn.nn.text.transformer import Config
from junlearn.transform import Request

_RATE = 1e-3


def training(
  repeats: int, config: Config, *, batch_size: int, length: int, steps: int
) -> Iterator[timing.Comparison]:
  """Steps of Adam on the cross-entropy, blocks scanned and written out."""
  stacked = replace(config, scan_layers=True)
  forms = {"scanned": stacked, "unrolled": replace(config, scan_layers=False)}
  rows = _rows(config, batch_size, length)
  params = transformer.model(stacked).init(jax.random.key(0), rows["input"])
  starts = {"scanned": params, "unrolled": transformer.unstack(params)}
  net = decoder.Decoder(stacked, params)
  batch = torch.from_numpy(np.array(rows["input"], np.int64))
  _check_same(stacked, params, rows["input"], net, batch)

  def ours(name):
    request = Request(None, rows)
    result = transforms[name](jax.random.key(1), starts[name], request)
    return np.asarray(jax.block_until_ready(result).info["steps"]["loss"])

  transforms = {
    name: descent.descend(
      objective.weighted(
        language.cross_entropy(transformer.model(form)), retain=1.0
      ),
      optax.adam(_RATE),
      num_steps=steps,
      batch_size=batch_size,
      loop=loop.host(),
    )
    for name, form in forms.items()
  }
  yield from threads.compare(
    f"{steps} steps, {_name(config)}, batch {batch_size}x{length}",
    {name: functools.partial(ours, name) for name in forms},
    {
      "eager": lambda: decoder.train(
        copy.deepcopy(net), batch, steps=steps, learning_rate=_RATE
      )
    },
    repeats=repeats,
    threshold=1.0,
  )


def decoding(
  repeats: int, config: Config, *, batch_size: int, length: int, new: int
) -> Iterator[timing.Comparison]:
  """Greedy tokens from the cache, and from whole rows read again."""
  prompts = _rows(config, batch_size, length)["input"]
  model = transformer.model(config)
  params = model.init(jax.random.key(0), prompts)
  inputs = {
    "tokens": prompts,
    "positions": jnp.broadcast_to(jnp.arange(length), prompts.shape),
    "segments": jnp.ones_like(prompts),
  }

  @jax.jit
  def read_again(params, prompts):
    def step(i, rows):
      logits, _ = model.apply(params, rows)
      chosen = jnp.argmax(logits[:, i - 1], axis=-1).astype(rows.dtype)
      return rows.at[:, i].set(chosen)

    rows = jnp.pad(prompts, ((0, 0), (0, new)))
    return jax.lax.fori_loop(length, length + new, step, rows)[:, length:]

  def cached():
    return generation.greedy(
      *(transformer.decoder(config), params, inputs),
      num_tokens=new,
      eos=-1,  # no token ends a row early
      batch_size=batch_size,
    )

  def uncached():
    return np.asarray(read_again(params, prompts))

  results = {}
  first = timing.seconds(lambda: results.update(cached=cached()))
  np.testing.assert_array_equal(results["cached"], uncached())
  times = timing.alternate({"cached": cached, "uncached": uncached}, repeats)
  yield timing.Comparison(
    f"{new} tokens after {length}, {_name(config)}, {batch_size} rows",
    "cache",
    "none",
    list(zip(times["cached"], times["uncached"], strict=True)),
    2.0,
    first - min(times["cached"]),
    0.0,
  )


def _rows(config, n, length):
  tokens = jax.random.randint(
    jax.random.key(1), (n, length), 0, config.vocab_size, jnp.int32
  )
  mask = jnp.ones((n, length), bool).at[:, 0].set(False)
  return {"input": tokens, "mask": mask, "id": jnp.arange(n)}


def _name(config):
  return f"{transformer.num_params(config) / 1e6:.1f} M params"


def _check_same(config, params, tokens, net, batch):
  """Both nets give the same logits before anything is timed."""
  ours, _ = jax.jit(transformer.model(config).apply)(params, tokens)
  with torch.no_grad():
    theirs = net(batch).numpy()
  np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=1e-4)
