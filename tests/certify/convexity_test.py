import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import nnx

from junlearn.certify import convexity
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
  with pytest.raises(ValueError, match=f"operation '{operation}'"):
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
  with pytest.raises(ValueError, match=f"operation '{operation}'"):
    check(function, params)
