"""The net of all parts, on both sides: its data, weights and optimizer."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from sklearn import datasets

from experiments.bench.eager import cnn
from junlearn import loop, nn, objective
from junlearn.descent import Descent, run
from junlearn.loss import cross_entropy
from junlearn.model import from_linen

SHAPES = ((8, 8, 1), (28, 28, 1), (32, 32, 3))
MODEL = from_linen(nn.CNN(10))
OBJECTIVE = objective.weighted(cross_entropy(MODEL), retain=1.0)
_RATE, _MOMENTUM, _DECAY = 0.02, 0.9, 5e-4
SGD = optax.chain(
  optax.add_decayed_weights(_DECAY), optax.sgd(_RATE, _MOMENTUM)
)

# The same on PyTorch's side, `(net, inputs, labels, rows) -> losses`.
train = functools.partial(
  cnn.train, learning_rate=_RATE, momentum=_MOMENTUM, weight_decay=_DECAY
)


def digits(shape: tuple[int, ...]) -> dict[str, jax.Array]:
  """scikit-learn's 1,797 digits, enlarged to the shape, in [0, 1]."""
  found = datasets.load_digits()
  images = (found.images / 16).astype(np.float32)[..., None]
  images = jax.image.resize(images, (len(images), *shape[:2], 1), "linear")
  return {
    "input": jnp.broadcast_to(images, (len(images), *shape)).clip(0, 1),
    "label": jnp.asarray(found.target, jnp.int32),
  }


def name(shape: tuple[int, ...]) -> str:
  """Of the shape, in the table."""
  return "x".join(map(str, shape))


def init(shape: tuple[int, ...]) -> Any:
  """Weights for images of the shape."""
  return MODEL.init(jax.random.key(0), jnp.zeros((1, *shape)))


def check_same(params: Any, examples: Any) -> None:
  """Both nets give the same logits before anything is timed."""
  inputs = examples["input"][:256]
  ours = np.asarray(MODEL.apply(params, inputs)[0])
  with torch.no_grad():
    theirs = cnn.CNN(params, inputs.shape[1:3])(cnn.images(inputs)).numpy()
  np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=1e-4)


def loops(
  descent: Descent, *arguments: Any
) -> dict[str, Callable[[], np.ndarray]]:
  """Junlearn's side: the losses of all steps, by how these are looped."""

  def losses(transform):
    result = jax.block_until_ready(transform(*arguments))
    return np.asarray(result.info["steps"]["loss"])

  return {
    f"loop.{name}": functools.partial(losses, run(descent, how))
    for name, how in (("host", loop.host()), ("scan", loop.scan()))
  }
