import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from junlearn.certify import convexity
from junlearn.loss import softmax_cross_entropy
from junlearn.model import from_function, from_linen, from_nnx
from junlearn.nn import MLP
from tests import problems

INPUTS = jnp.ones((5, 4))
KEY = jax.random.key(0)


class FrozenFeatures(nn.Module):
  """A nonlinear map of the inputs alone, then a Dense head."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(jnp.tanh(x) ** 2)


class Convolution(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.Conv(2, (3,))(x[..., None])
    return nn.avg_pool(x, (2,), (2,)).reshape(x.shape[0], -1)


class Stack(nn.Module):
  """Two Dense layers without a nonlinearity: a product of parameters."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(nn.Dense(3)(x))


LINEAR_MODULES = {
  "dense": nn.Dense(3),
  "no_bias": nn.Dense(3, use_bias=False),
  "features": FrozenFeatures(),
  "embedding_of_one": nn.DenseGeneral((2, 3)),
}
OTHER_MODULES = {
  "mlp": MLP(3, hidden=(8,)),
  "stack": Stack(),
  "weight_norm": nn.WeightNorm(nn.Dense(3)),
  "layer_norm": nn.Sequential([nn.Dense(3), nn.LayerNorm()]),
  "batch_norm": nn.Sequential(
    [nn.Dense(3), nn.BatchNorm(use_running_average=True)]
  ),
}


def check(function, params):
  convexity.check_linear(from_function(function), params, INPUTS)


@pytest.mark.parametrize("name", LINEAR_MODULES)
def test_accepts_linear_modules(name):
  model = from_linen(LINEAR_MODULES[name])
  convexity.check_linear(model, model.init(KEY, INPUTS), INPUTS)


@pytest.mark.parametrize("name", OTHER_MODULES)
def test_refuses_other_modules(name):
  model = from_linen(OTHER_MODULES[name])
  with pytest.raises(ValueError, match="not linear in its parameters"):
    convexity.check_linear(model, model.init(KEY, INPUTS), INPUTS)


def test_nnx():
  linear = from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
  convexity.check_linear(linear, linear.init(KEY, INPUTS), INPUTS)
  mlp = from_nnx(
    lambda rngs: nnx.Sequential(
      nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 3, rngs=rngs)
    )
  )
  with pytest.raises(ValueError, match="not linear"):
    convexity.check_linear(mlp, mlp.init(KEY, INPUTS), INPUTS)


def test_logistic_regression_of_the_tests(x64):
  problem = problems.logistic()
  inputs = problem.examples["input"]
  convexity.check_linear(problem.model, problem.init(), inputs)


W = jnp.ones((4, 3))
V = jnp.ones(4)


@pytest.mark.parametrize(
  "function",
  [
    lambda w, x: x @ w,
    lambda w, x: jnp.einsum("ni,ij->nj", x, w) / 2 - 1,
    lambda w, x: jnp.concatenate([x @ w, jnp.zeros((5, 1))], 1),
    lambda w, x: jnp.where(x[:, :3] > 0, x @ w, -(x @ w)),
    lambda w, x: jax.jit(lambda a: a.T.sum(0) * x[:, 0, None])(w[:, 0]),
    lambda w, x: jax.checkpoint(lambda a: x @ a)(w),
    lambda w, x: w[jnp.array([0, 2])],
    lambda w, x: jax.lax.dynamic_slice(w, (x[0, 0].astype(int), 0), (1, 2)),
    lambda w, x: jnp.sort(x) @ w + jnp.exp(x)[:, :3],
  ],
)
def test_accepts_linear_functions(function):
  check(function, W)


@pytest.mark.parametrize(
  ("function", "operation"),
  [
    (lambda w, x: x @ jnp.tanh(w), "tanh"),
    (lambda w, x: x @ w**2, "integer_pow"),
    (lambda w, x: x @ (w * w), "mul"),
    (lambda w, x: x @ w @ w.T, "dot_general"),
    (lambda w, x: x[:, :3] / w[0], "div"),
    (lambda w, x: x @ jnp.abs(w), "abs"),
    (lambda w, x: jax.nn.relu(x @ w), "custom_jvp_call"),
    (lambda w, x: jnp.maximum(x @ w, 0), "max"),
    (lambda w, x: jnp.where(w[0] > 0, x @ w, 0), "gt"),
    (lambda w, x: jnp.floor(x @ w), "floor"),
    (lambda w, x: jnp.take(x[0], jnp.argmax(w[:, 0])), "argmax"),
    (lambda w, x: jax.jit(jnp.sin)(x @ w), "sin"),
    (lambda w, x: jax.checkpoint(jnp.sin)(x @ w), "sin"),
    (lambda w, x: (x @ w).astype(jnp.int32), "convert_element_type"),
    (lambda w, x: (x @ w).astype(jnp.float16), "convert_element_type"),
    # Linear, but not as JAX's derivative sees it.
    (lambda w, x: x @ jax.lax.stop_gradient(w), "stop_gradient"),
    # Linear, but not read: loops.
    (
      lambda w, x: jax.lax.fori_loop(0, 3, lambda _, a: a + w, 0 * w),
      "scan",
    ),
  ],
)
def test_refuses_other_functions(function, operation):
  with pytest.raises(ValueError, match=re.escape(f"operation '{operation}'")):
    check(function, W)


def test_a_derivative_of_its_own_is_refused():
  @jax.custom_vjp
  def lies(w):
    return 2 * w

  lies.defvjp(lambda w: (2 * w, None), lambda _, g: (5 * g,))
  with pytest.raises(ValueError, match="custom_vjp_call"):
    check(lambda w, x: x @ lies(w), W)


def test_two_leaves_may_add_but_not_multiply():
  params = {"w": W, "v": V}
  check(lambda p, x: x @ p["w"] + (x @ p["v"])[:, None], params)
  with pytest.raises(ValueError, match="mul"):
    check(lambda p, x: x @ p["w"] * p["v"][:3], params)


@pytest.mark.parametrize(
  ("function", "operation"),
  [
    (lambda p, x: jnp.where(p["mask"], x @ p["w"], 0), "select_n"),
    (
      lambda p, x: x @ p["w"] * p["count"].astype(jnp.float32),
      "convert_element_type",
    ),
  ],
)
def test_leaves_that_are_not_floats_are_refused(function, operation):
  params = {
    "w": W,
    "mask": jnp.ones((5, 3), bool),
    "count": jnp.ones(3, jnp.int32),
  }
  with pytest.raises(ValueError, match=re.escape(f"operation '{operation}'")):
    check(function, params)


# Products in fewer digits than their operands have.


def product(precision):
  return lambda w, x: jnp.dot(x, w, precision=precision)


@pytest.mark.parametrize(
  "precision",
  [None, *jax.lax.Precision, jax.lax.DotAlgorithmPreset.F64_F64_F64],
)
def test_accepts_products_of_all_digits(precision):
  check(product(precision), W)


@pytest.mark.parametrize(
  "precision",
  [
    jax.lax.DotAlgorithmPreset.BF16_BF16_F32,
    jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3,
    jax.lax.DotAlgorithmPreset.TF32_TF32_F32,
    jax.lax.DotAlgorithmPreset.F32_F32_F32,  # of doubles, it rounds them too
    "BF16_BF16_F32",
  ],
)
def test_refuses_products_of_fewer_digits(precision):
  with pytest.raises(ValueError, match="operation 'dot_general'"):
    check(product(precision), W)


def test_refuses_them_where_they_are_the_default():
  with (
    jax.default_matmul_precision("BF16_BF16_F32"),
    pytest.raises(ValueError, match="operation 'dot_general'"),
  ):
    check(lambda w, x: x @ w, W)
  with jax.default_matmul_precision("highest"):
    check(lambda w, x: x @ w, W)


def test_refuses_results_of_fewer_digits():
  def short(w, x):
    return jnp.dot(x, w, preferred_element_type=jnp.bfloat16)

  with pytest.raises(ValueError, match="operation 'dot_general'"):
    check(short, W)


# Losses.

EXAMPLES = {"label": np.array([0, 2, 1, 1, 0])}
OUTPUTS = np.random.default_rng(0).normal(size=(5, 3))


def check_loss(loss, stated="It is known to be."):
  outputs = jnp.asarray(OUTPUTS)
  return convexity.check_loss(loss, outputs, EXAMPLES, stated=stated)


def squared(outputs, examples):
  target = jax.nn.one_hot(examples["label"], 3)
  return jnp.sum(jnp.square(outputs - target), 1) / 2


def logsumexp(outputs, examples):
  del examples
  return jax.nn.logsumexp(outputs, axis=1)


def hinge(outputs, examples):
  truth = outputs[jnp.arange(5), examples["label"]]
  return jnp.maximum(0, 1 + jnp.max(outputs, 1) - truth)


@jax.custom_vjp
def _wrong_slope(outputs):
  return jnp.sum(jnp.square(outputs), 1) / 2


_wrong_slope.defvjp(
  lambda outputs: (_wrong_slope(outputs), outputs),
  lambda outputs, g: (0.9 * outputs * g[:, None],),
)


def wrong_slope(outputs, examples):
  """Convex, with nine tenths of its derivative."""
  del examples
  return _wrong_slope(outputs)


def test_one_loss_is_known(x64):
  said = check_loss(softmax_cross_entropy, stated="")
  assert said == "The loss is the softmax cross-entropy, convex in the outputs."


@pytest.mark.parametrize("stated", ["", "  "])
def test_of_others_it_must_be_said(x64, stated):
  with pytest.raises(ValueError, match="output_loss is 'squared', and convex"):
    check_loss(squared, stated)


@pytest.mark.parametrize("loss", [squared, logsumexp, hinge])
def test_accepts_convex_losses(x64, loss):
  assert check_loss(loss) == (
    "The loss is convex in the outputs: It is known to be."
  )


@pytest.mark.parametrize(
  "loss",
  [
    lambda outputs, examples: jnp.sum(jnp.sin(outputs), 1),
    lambda outputs, examples: -logsumexp(outputs, examples),
    lambda outputs, examples: jnp.sum(jnp.sqrt(jnp.abs(outputs)), 1),
    lambda outputs, examples: jnp.tanh(squared(outputs, examples)),
    lambda outputs, examples: outputs[:, 0] * outputs[:, 1],
    lambda outputs, examples: jnp.log(outputs[:, 0]),  # NaN below 0
    lambda outputs, examples: squared(outputs, examples) / 0,
    wrong_slope,
    lambda outputs, examples: squared(jnp.round(outputs), examples),
    lambda outputs, examples: squared(jax.lax.stop_gradient(outputs), examples),
  ],
)
def test_refuses_losses_that_a_sample_contradicts(x64, loss):
  with pytest.raises(ValueError, match="which is not convex in the outputs"):
    check_loss(loss)


def test_refuses_losses_of_fewer_digits(x64):
  def short(outputs, examples):
    return squared(outputs, examples).astype(jnp.float32)

  with pytest.raises(ValueError, match="returns float32 for outputs of float"):
    check_loss(short)
