"""Small problems with known answers, shared by the tests."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from sklearn import datasets

from junlearn import language
from junlearn.data import select
from junlearn.loss import Loss, cross_entropy
from junlearn.model import Model, from_function, from_linen
from junlearn.nn import MLP, ResNet
from junlearn.transform import Request


class Problem(NamedTuple):
  """A model, its data, and which examples to forget.

  `loss(model)` is the per-example loss, minus the log-probability of the truth.
  """

  model: Model
  examples: dict[str, Any]
  request: Request
  num_classes: int
  loss: Callable[[Model], Loss] = cross_entropy

  def init(self, seed: int = 0) -> Any:
    """Fresh params."""
    init = _jitted(self.model)
    return init(jax.random.key(seed), self.examples["input"][:1])

  def confidence(self, params: Any, part: str = "forget") -> jax.Array:
    """The mean probability of the truth on a part of the request."""
    losses, _ = self.loss(self.model)(params, getattr(self.request, part))
    return jnp.mean(jnp.exp(-losses))


@functools.cache
def _jitted(model: Model):
  return jax.jit(model.init)


def _examples(inputs, labels):
  return {
    "input": jnp.asarray(inputs),
    "label": jnp.asarray(labels, jnp.int32),
    "id": jnp.arange(len(labels), dtype=jnp.int32) + 100,
  }


@functools.cache
def blobs(*, hidden: int = 16, n: int = 40, noise: float = 0.15) -> Problem:
  """Three Gaussian blobs in the unit box; a net that can memorize them.

  One label in eight is wrong, so that a model trained on an example differs
  from one that has never seen it.
  """
  rng = np.random.default_rng(0)
  true = np.arange(n) % 3
  centres = np.eye(3, 6) * 0.6 + 0.2
  inputs = np.clip(centres[true] + rng.normal(0, noise, (n, 6)), 0, 1)
  wrong = rng.permutation(n) < n // 8
  labels = np.where(wrong, (true + rng.integers(1, 3, n)) % 3, true)
  examples = _examples(inputs.astype(np.float32), labels)
  request = select.by_fraction(examples, 0.25, seed=0)
  model = from_linen(MLP(3, hidden=(hidden,)))
  return Problem(model, examples, request, 3)


class _Normalized(nn.Module):
  """A dense net with BatchNorm, which compiles sooner than a ResNet."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
    return nn.Dense(3)(nn.relu(x))


@functools.cache
def normalized() -> Problem:
  """The blobs, with a net that has batch statistics."""
  return blobs()._replace(model=from_linen(_Normalized()))


@functools.cache
def digits() -> Problem:
  """24 digits of 4x4 pixels and a residual net with BatchNorm."""
  images, labels = datasets.load_digits(return_X_y=True)
  inputs = (images[:24] / 16).reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))
  inputs = inputs.astype(np.float32)
  examples = _examples(inputs, labels[:24])
  request = select.by_fraction(examples, 0.25, seed=0)
  model = from_linen(ResNet(10, stages=(1,), features=4))
  return Problem(model, examples, request, 10)


class _Reader(nn.Module):
  """A model of text: each token with the mean of those before it."""

  vocabulary: int

  def setup(self):
    self.embed = nn.Embed(self.vocabulary, 16)
    self.hidden = nn.Dense(32)
    self.head = nn.Dense(self.vocabulary)

  def features(self, tokens: jax.Array) -> jax.Array:
    """The activations `[n, length, 32]` that the head reads."""
    x = 4 * self.embed(tokens)
    count = jnp.arange(1, tokens.shape[1] + 1, dtype=x.dtype)
    past = jnp.cumsum(x, axis=1) / count[:, None]
    return nn.relu(self.hidden(jnp.concatenate([x, past], axis=-1)))

  def __call__(self, tokens: jax.Array) -> jax.Array:
    return self.head(self.features(tokens))


PAD, END, VOCABULARY = 0, 1, 20
_AUTHOR, _FACT, _VALUE = 2, 10, 13


def _sentences(authors, facts, answers):
  """Rows `author fact answer <end>`, padded to six tokens."""
  inputs = np.full((len(answers), 6), PAD, np.int32)
  mask = np.zeros(inputs.shape, bool)
  for row, answer in enumerate(answers):
    tokens = [authors[row] + _AUTHOR, facts[row] + _FACT, *answer, END]
    inputs[row, : len(tokens)] = tokens
    mask[row, 2 : len(tokens)] = True
  return {"input": jnp.asarray(inputs), "mask": jnp.asarray(mask)}


@functools.cache
def sentences() -> Problem:
  """Three facts of eight authors, in answers of one or two random tokens.

  No answer follows from the others. `alternative` has another answer to each
  prompt, of as many tokens and none of them the true one.
  """
  rng = np.random.default_rng(0)
  authors, facts = (x.ravel() for x in np.divmod(np.arange(24), 3))
  values = rng.integers(0, 7, (24, 2))
  others = (values + rng.integers(1, 7, values.shape)) % 7
  lengths = 1 + rng.integers(0, 2, 24)
  truth, alternative = (
    [_VALUE + row[:length] for row, length in zip(v, lengths, strict=True)]
    for v in (values, others)
  )
  examples = {
    **_sentences(authors, facts, truth),
    "alternative": _sentences(authors, facts, alternative),
    "author": jnp.asarray(authors, jnp.int32),
    "id": jnp.arange(24, dtype=jnp.int32) + 100,
  }
  request = select.by_id(examples, examples["id"][authors < 2])
  loss = functools.partial(
    language.cross_entropy, output_loss=language.mean_nll
  )
  model = from_linen(_Reader(VOCABULARY))
  return Problem(model, examples, request, VOCABULARY, loss)


def features(params: Any, inputs: jax.Array) -> jax.Array:
  """The activations of the model of `sentences`."""
  return _Reader(VOCABULARY).apply(params, inputs, method="features")


def linear(kernel: Any, bias: Any) -> tuple[Model, Any]:
  """A model `logits = inputs @ kernel + bias`, and its params."""

  def apply(params, inputs):
    return inputs @ params["kernel"] + params["bias"]

  def init(key, inputs):
    del key, inputs
    return jax.tree.map(jnp.zeros_like, params)

  params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
  return from_function(apply, init), params


def logistic(*, n: int = 60) -> Problem:
  """Logistic regression of three classes; double precision under `x64`.

  Convex: with an l2 penalty, retraining has one answer.
  """
  rng = np.random.default_rng(1)
  true = np.arange(n) % 3
  inputs = np.eye(3, 4)[true] + rng.normal(0, 0.7, (n, 4))
  model, _ = linear(np.zeros((4, 3)), np.zeros(3))
  examples = _examples(inputs, true)
  request = select.by_fraction(examples, 0.2, seed=0)
  return Problem(model, examples, request, 3)
