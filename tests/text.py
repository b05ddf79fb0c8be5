"""A small request of text, and what its methods do to it written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from junlearn import tree
from junlearn.transform import Request
from tests import problems

ROWS = 6
KEY = jax.random.key(5)


@functools.cache
def request():
  """Six rows to forget and six to retain, answers of one and two tokens."""
  forget, retain, _ = problems.sentences().request
  return Request(forget, tree.take(retain, np.arange(3, 3 + ROWS)))


@functools.cache
def params(seed=0):
  """Fresh params, spread out so that tokens differ in their probability."""
  return jax.tree.map(lambda x: 2 * x, problems.sentences().init(seed))


def answer_log_probs(params, examples):
  """The log-probabilities of all answers' tokens, and the row of each."""
  logits, _ = problems.sentences().model.apply(params, examples["input"])
  rows, places = np.nonzero(examples["mask"])
  tokens = np.asarray(examples["input"])[rows, places]
  log_probs = jax.nn.log_softmax(logits[rows, places - 1])
  return log_probs[np.arange(len(tokens)), tokens], rows


def sums(params, examples):
  """`S`, `[n]`."""
  log_probs, rows = answer_log_probs(params, examples)
  belongs = rows == np.arange(len(examples["input"]))[:, None]
  return belongs.astype(np.float32) @ log_probs


def means(params, examples):
  """`S / |y|`, `[n]`."""
  lengths = np.sum(examples["mask"], axis=1, dtype=np.float32)
  return sums(params, examples) / lengths


def nll(params, examples):
  """The mean over the tokens of all answers."""
  return -jnp.mean(answer_log_probs(params, examples)[0])


def gradient(function, at=None):
  """The gradient of a function of the params."""
  return jax.jit(jax.grad(function))(params() if at is None else at)


def descend(make, *arguments, start=None, num_steps=1, rate=1.0, **options):
  """A method's result after full batches and plain gradient steps."""
  transform = make(
    problems.sentences().model,
    optax.sgd(rate),
    num_steps=num_steps,
    batch_size=ROWS,
    **options,
  )
  start = params() if start is None else start
  return transform(KEY, start, *(arguments or (request(),)))


def assert_descends(result, gradient, *, start=None, rtol=1e-4, atol=1e-5):
  """The step of rate 1 was minus the gradient."""
  start = params() if start is None else start
  step = jax.tree.map(lambda old, new: old - new, start, result.params)
  assert_close(step, gradient, rtol=rtol, atol=atol)


def assert_close(actual, desired, rtol=1e-4, atol=1e-5):
  assert jax.tree.structure(actual) == jax.tree.structure(desired)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    actual,
    desired,
  )


def vector(params):
  """All leaves as one array of double precision."""
  return np.concatenate(
    [np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(params)]
  )
