"""Nearest adversarial examples of a trained net."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch

from experiments.bench import timing
from experiments.bench.eager import cnn, threads
from experiments.bench.torch_cpu import nets
from junlearn import adversarial, descent, loop
from junlearn.transform import Request

_COUNT = 1000


def compare(repeats: int) -> Iterator[timing.Comparison]:
  """The two smaller shapes; PyTorch in blocks, compacting or masked."""
  nearest = adversarial.nearest_adversarial(nets.MODEL)
  for shape in nets.SHAPES[:2]:
    params, examples = _trained(shape)
    net = cnn.CNN(params, shape[:2]).requires_grad_(False)
    tensors = cnn.tensors(examples)

    def ours(params=params, examples=examples):
      return _found(jax.block_until_ready(nearest(params, examples)))

    def theirs(compact, size, net=net, tensors=tensors):
      blocks = zip(*(part.split(size) for part in tensors), strict=True)
      parts = [
        cnn.nearest_adversarial(net, *block, compact=compact)
        for block in blocks
      ]
      joined = map(torch.cat, zip(*parts, strict=True))
      return _found(cnn.Adversarial(*joined))

    yield from threads.compare(
      f"{_COUNT} adversarial examples, {nets.name(shape)}",
      {"128 slots": ours},
      {
        f"{name}, {size} a block": functools.partial(theirs, compact, size)
        for name, compact in (("compacting", True), ("masked", False))
        for size in (128, _COUNT)
      },
      repeats=repeats,
      threshold=2.0,
    )


def _trained(shape: tuple[int, ...]) -> tuple[Any, Any]:
  """A trained net, and the examples that are moved."""
  examples = nets.digits(shape)
  transform = descent.descend(
    nets.OBJECTIVE, nets.SGD, num_steps=400, batch_size=64, loop=loop.host()
  )
  request = Request(None, examples)
  params = transform(jax.random.key(0), nets.init(shape), request).params
  nets.check_same(params, examples)
  return params, jax.tree.map(lambda leaf: leaf[:_COUNT], examples)


def _found(found: Any) -> np.ndarray:
  """Labels and distances in one array, so that both are compared."""
  return np.stack([np.asarray(found.label), np.asarray(found.distance)])
