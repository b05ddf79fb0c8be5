import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, special

from junlearn.certify import constants

RADIUS = 1.7


def logistic_loss(scores, label):
  return optax.sigmoid_binary_cross_entropy(scores[..., 0], label)


def softmax_loss(scores, label):
  return optax.softmax_cross_entropy_with_integer_labels(scores, label)


# loss of the scores, number of scores, constants without scale and penalty
HEADS = {
  "logistic": (logistic_loss, 1, constants.logistic),
  **{
    f"softmax{k}": (
      softmax_loss,
      k,
      lambda k=k, **options: constants.softmax(num_classes=k, **options),
    )
    for k in (2, 3)
  },
}
every_head = pytest.mark.parametrize("name", HEADS)


def largest(function, size):
  """The largest value found by normalized ascent from eight starts."""

  def step(x, length):
    value, slope = jax.value_and_grad(function)(x)
    return x + length * unit(slope), value

  lengths = jnp.linspace(0.3, 0.0, 250)
  starts = jax.random.normal(jax.random.key(0), (8, size))
  climb = jax.vmap(lambda start: jax.lax.scan(step, start, lengths)[1])
  return float(jnp.max(jax.jit(climb)(starts)))


def unit(x):
  return x / jnp.sqrt(jnp.sum(x**2) + 1e-30)


@every_head
def test_constants_are_bounds_and_tight(x64, name):
  """Maximised over the weights of one input at the radius, and directions.

  For an input `x` the weights act through `W.x` alone: a unit step of the
  weights is at most `|x|` in the scores.
  """
  loss, scores, make = HEADS[name]
  l2 = 0.05
  bound = make(input_norm=RADIUS, l2=l2)
  label = 0 if scores > 1 else 0.0

  def along(z, *directions):
    def derivative(function, direction):
      return lambda z: jax.jvp(function, (z,), (RADIUS * unit(direction),))[1]

    function = functools.partial(loss, label=label)
    for direction in directions:
      function = derivative(function, direction)
    return function(z)

  def found(order):
    return largest(
      lambda x: along(*x.reshape(order + 1, scores)), (order + 1) * scores
    )

  values = (bound.gradient, bound.smoothness - l2, bound.hessian_lipschitz)
  for order, value in enumerate(values, 1):
    assert 0.98 * value <= found(order) <= value * (1 + 1e-9), order


@every_head
def test_hessian_of_a_data_set(x64, name):
  """The definitions themselves, with a bias as one more feature."""
  loss, scores, make = HEADS[name]
  rng = np.random.default_rng(2)
  l2, scale = 0.1, 2.5

  def risk(w, x, y):
    z = x @ w.reshape(3, scores)
    return scale * jnp.mean(loss(z, y)) + l2 / 2 * jnp.sum(w**2)

  hessian = jax.jit(jax.hessian(risk))
  for _ in range(15):
    x = rng.normal(size=(3, 2)) * rng.choice([0.3, 1, 3])
    x = jnp.asarray(np.concatenate([x, np.ones((3, 1))], 1))
    y = jnp.asarray(rng.integers(0, max(scores, 2), 3))
    y = y.astype(jnp.float64) if scores == 1 else y
    radius = float(jnp.max(jnp.linalg.norm(x, axis=1)))
    bound = make(input_norm=radius, l2=l2, scale=scale)

    first, second = rng.normal(0, rng.choice([0.1, 1, 5]), (2, 3 * scores))
    before, after = hessian(first, x, y), hessian(second, x, y)
    assert np.linalg.norm(before, 2) <= bound.smoothness
    change = np.linalg.norm(before - after, 2)
    lipschitz = bound.hessian_lipschitz * np.linalg.norm(first - second)
    assert change <= lipschitz


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 0.3, 10.0])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_gradient_at_an_optimum(l2, scale):
  """Worst case: one example repeated; a second one against it."""
  bound = constants.logistic(input_norm=RADIUS, l2=l2, scale=scale)
  # The optimum w > 0 of scale * log(1 + exp(-r w)) + l2/2 w^2.
  w = optimize.brentq(
    lambda w: l2 * w - scale * RADIUS * special.expit(-RADIUS * w), 0, 1e5
  )
  against = scale * RADIUS * special.expit(RADIUS * w) + l2 * w
  assert against <= bound.optimum_gradient <= 2 * against
  penalty = bound.optimum_gradient - bound.gradient
  assert l2 * w <= penalty


def test_known_values():
  """At unit inputs: the published constants, and the sharper third one."""
  logistic = constants.logistic(input_norm=1.0, l2=0.5)
  np.testing.assert_allclose(
    logistic[:3], (1, 0.75, 1 / (6 * np.sqrt(3))), rtol=1e-12
  )
  softmax = constants.softmax(input_norm=1.0, l2=0.5, num_classes=10)
  np.testing.assert_allclose(
    softmax[:3], (np.sqrt(2), 1, np.sqrt(2) / (3 * np.sqrt(3))), rtol=1e-12
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"input_norm": 0.0}, r"input_norm is 0\.0"),
    ({"l2": -1.0}, r"l2 is -1\.0"),
    ({"scale": float("inf")}, "scale is inf"),
    ({"num_classes": 1}, "num_classes is 1"),
  ],
)
def test_bad_input(options, message):
  settings = {"input_norm": 1.0, "l2": 0.1, "num_classes": 3}
  with pytest.raises(ValueError, match=message):
    constants.softmax(**{**settings, **options})
