"""Training steps of one net, and of many nets at once."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch

from experiments.bench import timing
from experiments.bench.eager import cnn, threads
from experiments.bench.torch_cpu import nets
from junlearn import batch, descent
from junlearn.parallel.across import fastest
from junlearn.transform import Request, stage_key

_STEPS = 100
_MEMBERS, _MEMBER_STEPS, _MEMBER_BATCH = 16, 50, 64


def single(repeats: int) -> Iterator[timing.Comparison]:
  """Steps looped from Python and as one program, of three shapes of images."""
  for shape in nets.SHAPES:
    examples, params = nets.digits(shape), nets.init(shape)
    nets.check_same(params, examples)
    tensors = cnn.tensors(examples)
    key = jax.random.key(1)
    for size in (64, 128):
      rows = _rows(key, examples, _STEPS, size)
      data = *tensors, torch.from_numpy(np.array(rows))

      def theirs(params=params, shape=shape, data=data):
        return nets.train(cnn.CNN(params, shape[:2]), *data).numpy()

      steps = _descent(_STEPS, size)
      yield from threads.compare(
        f"{_STEPS} steps, {nets.name(shape)}, batch {size}",
        nets.loops(steps, key, params, Request(None, examples)),
        {"eager": theirs},
        repeats=repeats,
        threshold=1.5,
      )


def population(repeats: int) -> Iterator[timing.Comparison]:
  """Shadow models, each on its own random half of the examples."""
  for shape in nets.SHAPES[:2]:
    examples = nets.digits(shape)
    n = len(examples["label"])
    key = jax.random.key(2)
    membership = jax.random.bernoulli(key, 0.5, (_MEMBERS, n))
    membership = membership.astype(jnp.float32)
    keys = jax.random.split(stage_key(key, "members"), _MEMBERS)
    stacked = jax.vmap(nets.MODEL.init, (0, None))(keys, examples["input"][:1])
    starts = [
      jax.tree.map(lambda leaf, m=m: leaf[m], stacked) for m in range(_MEMBERS)
    ]
    nets.check_same(starts[0], examples)
    rows = jax.vmap(
      lambda key, weight: _rows(
        key, {"weight": weight}, _MEMBER_STEPS, _MEMBER_BATCH
      )
    )(keys, membership)
    rows = torch.from_numpy(np.array(rows))
    data = cnn.tensors(examples)

    def theirs(starts=starts, shape=shape, data=data, rows=rows):
      losses = [
        nets.train(cnn.CNN(start, shape[:2]), *data, row)
        for start, row in zip(starts, rows, strict=True)
      ]
      return torch.stack(losses, 1).numpy()

    # As `audit.population.train` does, but with one transform for all calls:
    # that function makes a new one, which compiles, at each.
    steps = descent.population(
      _descent(_MEMBER_STEPS, _MEMBER_BATCH),
      Request(None, {**dict.fromkeys(examples), "weight": 0}),
      backend=fastest(_MEMBERS),
    )
    request = Request(None, {**examples, "weight": membership})
    yield from threads.compare(
      f"{_MEMBERS} models, {_MEMBER_STEPS} steps, {nets.name(shape)}",
      nets.loops(steps, keys, stacked, request),
      {"one by one": theirs},
      repeats=repeats,
      threshold=1.5,
    )


def _rows(key, examples, num_steps, batch_size):
  """The batches that junlearn draws."""
  return batch.indices(
    stage_key(key, "retain"),
    examples,
    num_steps=num_steps,
    batch_size=batch_size,
  )


def _descent(num_steps, batch_size):
  return descent.gradient_descent(
    nets.OBJECTIVE, nets.SGD, num_steps=num_steps, batch_size=batch_size
  )
