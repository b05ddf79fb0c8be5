"""The allowance for rounding, against gradients in more digits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from junlearn import objective
from junlearn.certify.rounding import gradient_error
from junlearn.loss import of_outputs, softmax_cross_entropy
from junlearn.model import from_function
from tests import softmax

L2 = 0.01
MODEL = from_function(
  lambda params, inputs: inputs @ params["kernel"] + params["bias"]
)


def problem(seed, n, features=6, classes=4, scale=1.0):
  """Params and examples; the constant of the bias comes last."""
  rng = np.random.default_rng(seed)
  params = {
    "kernel": scale * rng.normal(size=(features, classes)),
    "bias": scale * rng.normal(size=classes),
  }
  examples = {
    "input": rng.normal(size=(n, features)),
    "label": rng.integers(0, classes, n).astype(np.int32),
  }
  return jax.tree.map(jnp.asarray, (params, examples))


@jax.jit
def measured(params, examples):
  """The gradient in doubles, and the allowance."""
  risk = objective.risk(of_outputs(MODEL), l2=L2)
  error = gradient_error(MODEL, softmax_cross_entropy, params, examples, l2=L2)
  return jax.grad(risk)(params, examples), error


def stacked(params):
  """Weights with the bias below them, `[features + 1, classes]`."""
  return np.concatenate([params["kernel"], np.asarray(params["bias"])[None]])


def arrays(params, examples):
  x = np.asarray(examples["input"])
  x = np.hstack([x, np.ones((len(x), 1))])
  return stacked(params), x, np.asarray(examples["label"])


def exact(params, examples, number, exponential):
  """The gradient in the arithmetic of `number`."""
  theta, x, y = arrays(params, examples)
  convert = np.vectorize(number, otypes=[object])
  theta, x = convert(theta), convert(x)
  score = x.dot(theta)
  p = np.vectorize(exponential, otypes=[object])(score - score.max(1)[:, None])
  p = p / p.sum(1)[:, None]
  p[np.arange(len(y)), y] -= 1
  return x.T.dot(p) / len(y) + number(L2) * theta


def apart(gradient, other):
  difference = stacked(gradient).astype(object) - other
  return float(sum(d * d for d in difference.ravel())) ** 0.5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("seed", range(3))
def test_allowance_covers_the_error_in_forty_digits(seed, scale):
  """Also of large weights, whose outputs lose digits."""
  params, examples = problem(seed, 12, scale=scale)
  gradient, error = measured(params, examples)
  with mpmath.workdps(40):
    other = exact(params, examples, mpmath.mpf, mpmath.exp)
    found = apart(gradient, other)
  assert 0 < found <= error


@pytest.mark.usefixtures("x64")
@pytest.mark.skipif(
  np.finfo(np.longdouble).nmant < 60, reason="no longer doubles here"
)
@pytest.mark.parametrize(("n", "features"), [(1000, 6), (5000, 64), (300, 700)])
def test_allowance_covers_the_error_of_many_and_is_small(n, features):
  params, examples = problem(n, n, features, classes=10)
  gradient, error = measured(params, examples)
  theta, x, y = (
    np.asarray(a, np.longdouble if a.dtype == float else None)
    for a in arrays(params, examples)
  )
  score = x @ theta
  p = np.exp(score - score.max(1, keepdims=True))
  p /= p.sum(1, keepdims=True)
  p[np.arange(n), y] -= 1
  other = x.T @ p / n + np.longdouble(L2) * theta
  found = float(np.linalg.norm((stacked(gradient) - other).astype(float)))
  assert 0 < found <= error
  # Of use: nothing against gradients that corrections end at.
  size = float(np.linalg.norm(other.astype(float)))
  assert error < 1e-6 * size


@pytest.mark.usefixtures("x64")
def test_allowance_is_the_formula():
  """2 u k (mean |A| (1 + |d| + |m|) + l2 |w|), with A = |x| kron I."""
  params, examples = problem(5, 150, scale=2.0)
  theta, x, y = arrays(params, examples)
  p = softmax.probabilities(theta, x)
  p[np.arange(len(y)), y] -= 1
  length = np.linalg.norm(theta)
  jacobian = np.linalg.norm(x, axis=1) * np.sqrt(theta.shape[1])
  moduli = np.linalg.norm(np.abs(x) @ np.abs(theta), axis=1)
  each = jacobian * (1 + np.linalg.norm(p, axis=1) + moduli)
  expected = 2.0**-52 * (len(x) + theta.size) * (each.mean() + L2 * length)
  np.testing.assert_allclose(measured(params, examples)[1], expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_absent_examples_do_not_count():
  params, examples = problem(6, 80)
  weight = jnp.asarray(np.arange(80) < 50, float)
  far = examples["input"].at[50:].multiply(1e6)
  found = [
    measured(params, {**examples, "input": inputs, "weight": weight})[1]
    for inputs in (examples["input"], far)
  ]
  assert found[0] == found[1] > 0
  present = jax.tree.map(lambda leaf: leaf[:50], examples)
  # But for the numbers in the sums.
  share = (80 + 28) / (50 + 28)
  np.testing.assert_allclose(
    found[0], share * measured(params, present)[1], rtol=1e-12
  )


@pytest.mark.usefixtures("x64")
def test_what_is_not_finite_has_no_allowance():
  params, examples = problem(7, 10)
  for wrong in (np.nan, np.inf):
    inputs = examples["input"].at[3, 2].set(wrong)
    error = measured(params, {**examples, "input": inputs})[1]
    assert not np.isfinite(error)
