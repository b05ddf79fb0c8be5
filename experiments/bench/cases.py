"""The work that is timed: same nets, data, batches and optimiser."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from sklearn import datasets

from experiments.bench import eager, threads, timing
from junlearn import adversarial, batch, descent, loop, nn, objective
from junlearn.loss import cross_entropy
from junlearn.model import from_linen
from junlearn.parallel.across import fastest
from junlearn.transform import Request, Transform, stage_key

_SHAPES = ((8, 8, 1), (28, 28, 1), (32, 32, 3))
_RATE, _MOMENTUM, _DECAY = 0.02, 0.9, 5e-4
_MODEL = from_linen(nn.CNN(10))
_train = functools.partial(
  eager.train, learning_rate=_RATE, momentum=_MOMENTUM, weight_decay=_DECAY
)


def training(repeats: int, *, steps: int = 100) -> Iterator[timing.Comparison]:
  """Training steps, looped from Python and as one program."""
  for shape in _SHAPES:
    request = Request(None, _digits(shape))
    params = _params(shape)
    _check_same(params, request.retain)
    inputs, labels = _tensors(request.retain)
    key = jax.random.key(1)
    for size in (64, 128):
      rows = batch.indices(
        stage_key(key, "retain"),
        request.retain,
        num_steps=steps,
        batch_size=size,
      )
      rows = torch.from_numpy(np.array(rows))

      def theirs(params=params, shape=shape, data=(inputs, labels, rows)):
        return _train(eager.CNN(params, shape[:2]), *data).numpy()

      ours = {}
      for name, how in (("host", loop.host()), ("scan", loop.scan())):
        transform = descent.descend(
          _objective(), _sgd(), num_steps=steps, batch_size=size, loop=how
        )
        ours[f"loop.{name}"] = functools.partial(
          _losses, transform, key, params, request
        )
      yield from threads.compare(
        f"{steps} steps, {_name(shape)}, batch {size}",
        ours,
        {"eager": theirs},
        repeats=repeats,
        threshold=1.5,
      )


def products(repeats: int, *, calls: int = 20) -> Iterator[timing.Comparison]:
  """The matrix products of a step on 28x28x1, batch 128, by themselves.

  No step can be faster than its products together; training needs no input
  gradient of the first layer.
  """
  layers = {
    "first convolution": (128 * 14 * 14, 9, 16),
    "second convolution": (128 * 7 * 7, 144, 32),
    "hidden layer": (128, 1568, 64),
  }
  generator = np.random.default_rng(0)
  for layer, (rows, inputs, outputs) in layers.items():
    shapes = {"x": (rows, inputs), "w": (inputs, outputs), "g": (rows, outputs)}
    values = {
      name: generator.standard_normal(shape, np.float32)
      for name, shape in shapes.items()
    }
    for name, (left, right), axes in (
      ("outputs", "xw", (1, 0)),
      ("kernel gradient", "xg", (0, 0)),
      ("input gradient", "gw", (1, 1)),
    ):
      pair = values[left], values[right]
      yield from threads.compare(
        f"{calls} products, {layer}, {name}",
        {"dot_general": _xla_product(*pair, axes, calls)},
        {"matmul": _torch_product(*pair, axes, calls)},
        repeats=repeats,
        threshold=1.0,
      )


def _xla_product(left, right, axes, calls):
  left, right = jnp.asarray(left), jnp.asarray(right)
  contracted = tuple((axis,) for axis in axes)
  product = jax.jit(
    lambda a, b: jax.lax.dot_general(a, b, (contracted, ((),) * 2))
  )

  def work():
    for _ in range(calls):
      result = product(left, right)
    return np.asarray(result)

  return work


def _torch_product(left, right, axes, calls):
  left, right = torch.from_numpy(left), torch.from_numpy(right)
  left = left if axes[0] == 1 else left.T
  right = right if axes[1] == 0 else right.T

  def work():
    for _ in range(calls):
      result = left @ right
    return result.numpy()

  return work


def adversarial_examples(
  repeats: int, *, count: int = 1000
) -> Iterator[timing.Comparison]:
  """Nearest adversarial examples of a trained net."""
  for shape in _SHAPES[:2]:
    yield from _adversarial(shape, count, repeats)


def _adversarial(shape, count, repeats):
  examples = _digits(shape)
  transform = descent.descend(
    _objective(), _sgd(), num_steps=400, batch_size=64, loop=loop.host()
  )
  params = transform(
    jax.random.key(0), _params(shape), Request(None, examples)
  ).params
  _check_same(params, examples)
  examples = jax.tree.map(lambda leaf: leaf[:count], examples)
  net = eager.CNN(params, shape[:2]).requires_grad_(False)
  inputs, labels = _tensors(examples)
  nearest = adversarial.nearest_adversarial(_MODEL)

  def ours():
    return _found(jax.block_until_ready(nearest(params, examples)))

  def theirs(compact, size):
    parts = [
      eager.nearest_adversarial(net, *block, compact=compact)
      for block in zip(inputs.split(size), labels.split(size), strict=True)
    ]
    joined = eager.Adversarial(*map(torch.cat, zip(*parts, strict=True)))
    return _found(joined)

  yield from threads.compare(
    f"{count} adversarial examples, {_name(shape)}",
    {"128 slots": ours},
    {
      f"{name}, {size} a block": functools.partial(theirs, compact, size)
      for name, compact in (("compacting", True), ("masked", False))
      for size in (128, count)
    },
    repeats=repeats,
    threshold=2.0,
  )


def population(
  repeats: int, *, members: int = 16, steps: int = 50
) -> Iterator[timing.Comparison]:
  """Shadow models, each on its own random half of the examples."""
  for shape in _SHAPES[:2]:
    examples = _digits(shape)
    n = len(examples["label"])
    key = jax.random.key(2)
    membership = jax.random.bernoulli(key, 0.5, (members, n)).astype(
      jnp.float32
    )
    keys = jax.random.split(stage_key(key, "members"), members)
    stacked = jax.vmap(_MODEL.init, (0, None))(keys, examples["input"][:1])
    starts = [
      jax.tree.map(lambda leaf, m=m: leaf[m], stacked) for m in range(members)
    ]
    _check_same(starts[0], examples)
    rows = jax.vmap(
      lambda key, weight: batch.indices(
        stage_key(key, "retain"),
        {"weight": weight},
        num_steps=steps,
        batch_size=64,
      )
    )(keys, membership)
    rows = torch.from_numpy(np.array(rows))
    inputs, labels = _tensors(examples)

    def theirs(starts=starts, shape=shape, x=inputs, y=labels, rows=rows):
      nets = [eager.CNN(start, shape[:2]) for start in starts]
      losses = [_train(net, x, y, r) for net, r in zip(nets, rows, strict=True)]
      return torch.stack(losses, 1).numpy()

    # As `audit.population.train` does, but with one transform for all calls:
    # that function makes a new one, which compiles, at each.
    request = Request(None, {**examples, "weight": membership})
    axes = Request(None, {**dict.fromkeys(examples), "weight": 0})
    descents = descent.population(
      descent.gradient_descent(
        _objective(), _sgd(), num_steps=steps, batch_size=64
      ),
      axes,
      backend=fastest(members),
    )
    ours = {
      f"loop.{name}": functools.partial(
        _losses, descent.run(descents, how), keys, stacked, request
      )
      for name, how in (("host", loop.host()), ("scan", loop.scan()))
    }
    yield from threads.compare(
      f"{members} models, {steps} steps, {_name(shape)}",
      ours,
      {"one by one": theirs},
      repeats=repeats,
      threshold=1.5,
    )


def _digits(shape: tuple[int, ...]) -> dict[str, jax.Array]:
  """scikit-learn's 1,797 digits, enlarged to the shape, in [0, 1]."""
  digits = datasets.load_digits()
  images = (digits.images / 16).astype(np.float32)[..., None]
  images = jax.image.resize(images, (len(images), *shape[:2], 1), "linear")
  return {
    "input": jnp.broadcast_to(images, (len(images), *shape)).clip(0, 1),
    "label": jnp.asarray(digits.target, jnp.int32),
  }


def _name(shape: tuple[int, ...]) -> str:
  return "x".join(map(str, shape))


def _params(shape: tuple[int, ...]) -> Any:
  return _MODEL.init(jax.random.key(0), jnp.zeros((1, *shape)))


def _objective():
  return objective.weighted(cross_entropy(_MODEL), retain=1.0)


@functools.cache
def _sgd() -> optax.GradientTransformation:
  return optax.chain(
    optax.add_decayed_weights(_DECAY), optax.sgd(_RATE, _MOMENTUM)
  )


def _tensors(examples: Any) -> tuple[torch.Tensor, torch.Tensor]:
  labels = torch.from_numpy(np.array(examples["label"], np.int64))
  return eager.images(examples["input"]), labels


def _check_same(params: Any, examples: Any) -> None:
  """Both nets give the same logits before anything is timed."""
  inputs = examples["input"][:256]
  ours = np.asarray(_MODEL.apply(params, inputs)[0])
  with torch.no_grad():
    theirs = eager.CNN(params, inputs.shape[1:3])(eager.images(inputs)).numpy()
  np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=1e-4)


def _losses(transform: Transform, *arguments: Any) -> np.ndarray:
  result = jax.block_until_ready(transform(*arguments))
  return np.asarray(result.info["steps"]["loss"])


def _found(found: Any) -> np.ndarray:
  """Labels and distances in one array, so that both are compared."""
  return np.stack([np.asarray(found.label), np.asarray(found.distance)])
