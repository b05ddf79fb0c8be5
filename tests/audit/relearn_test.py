"""Relearning against NumPy's gradient descent and hand-computed scores."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import loop, view
from junlearn.audit import relearn
from junlearn.descent import descend
from junlearn.loss import cross_entropy
from junlearn.objective import weighted
from junlearn.transform import Request
from tests import problems

KEY = jax.random.key(5)
FACTS = {
  "input": np.arange(24, dtype=np.float32).reshape(12, 2) / 24,
  "target": np.linspace(-1, 1, 12).astype(np.float32),
  "fact": np.repeat([7, 3, 9, 5, 1], [3, 2, 3, 2, 2]),
  "id": np.arange(12),
}


def squared(params, examples, key=None):
  del key
  residual = examples["input"] @ params["w"] - examples["target"]
  return jnp.square(residual + params["b"]), params


def full_batch(steps, **options):
  return relearn.relearn(
    squared, optax.sgd(0.2), steps=steps, batch_size=12, **options
  )


START = {"w": jnp.array([0.5, -0.5]), "b": jnp.float32(0.1)}


@pytest.mark.parametrize("make_loop", [None, loop.scan])
def test_the_curve_is_one_gradient_descent_seen_on_the_way(make_loop):
  attack = full_batch((2, 3, 7), loop=make_loop and make_loop())
  curve = attack(KEY, START, FACTS, jax.device_get)
  w, b = np.array([0.5, -0.5]), 0.1
  path = [(w, b)]
  for _ in range(7):
    residual = FACTS["input"] @ w + b - FACTS["target"]
    w = w - 0.2 * 2 * FACTS["input"].T @ residual / 12
    b = b - 0.2 * 2 * np.mean(residual)
    path.append((w, b))
  assert curve.steps == (0, 2, 3, 7)
  for step, value in zip(curve.steps, curve.values, strict=True):
    np.testing.assert_allclose(value["w"], path[step][0], rtol=1e-5)
    np.testing.assert_allclose(value["b"], path[step][1], rtol=1e-5)
  np.testing.assert_array_equal(curve.params["w"], curve.values[-1]["w"])
  np.testing.assert_array_equal(START["w"], [0.5, -0.5])  # was not donated


def test_stops_to_measure_change_nothing():
  options = {"batch_size": 4}
  curve = relearn.relearn(squared, optax.sgd(0.2), steps=(3, 8), **options)(
    KEY, START, FACTS, lambda _: None
  )
  straight = descend(
    weighted(squared, retain=1.0), optax.sgd(0.2), num_steps=8, **options
  )(KEY, START, Request(None, FACTS))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
    curve.params,
    straight.params,
  )


def test_the_attacker_may_use_all_devices():
  attacks = full_batch((2, 5)), full_batch((2, 5), layout="replicated")
  one, many = (attack(KEY, START, FACTS, jax.device_get) for attack in attacks)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
    many.values,
    one.values,
  )


def test_the_attacker_may_train_some_leaves_alone():
  attack = full_batch((4,), view=view.only("b"))
  params = attack(KEY, START, FACTS, lambda _: None).params
  np.testing.assert_array_equal(params["w"], START["w"])
  assert abs(params["b"] - START["b"]) > 0.01


def test_a_classifier_that_hides_recovers_sooner_than_one_that_forgot():
  # The original, two classes of its head exchanged: hidden and not gone.
  problem = problems.blobs(hidden=8)
  loss = cross_entropy(problem.model)
  fit = relearn.relearn(
    loss, optax.sgd(0.5, momentum=0.9), steps=(60,), batch_size=20
  )
  original = fit(KEY, problem.init(), problem.examples, lambda _: None).params
  hidden = jax.tree.map(lambda leaf: leaf, original)
  kernel = hidden["params"]["Dense_1"]["kernel"]
  hidden["params"]["Dense_1"]["kernel"] = kernel[:, jnp.array([1, 0, 2])]
  attack = relearn.relearn(loss, optax.sgd(0.2), steps=(5, 20), batch_size=8)
  examples = problem.request.forget

  def negative_loss(params):
    return -float(jnp.mean(loss(params, examples)[0]))

  curves = [
    attack(KEY, params, examples, negative_loss).values
    for params in (hidden, problem.init(1))
  ]
  assert all(np.all(np.diff(curve) > 0) for curve in curves)
  score = relearn.robustness(*((curve[0], curve[-1]) for curve in curves)).score
  assert 0 < score < 0.9


def test_divergence_is_not_silent():
  attack = relearn.relearn(squared, optax.sgd(1e9), steps=(9,), batch_size=4)
  with pytest.raises(loop.NonFiniteError):
    attack(KEY, START, FACTS, lambda _: None)


@pytest.mark.parametrize(
  ("unlearned", "retrained", "ratio", "score"),
  [
    ((0.2, 0.8), (0.2, 0.5), 0.5, 0.5),
    ((0.2, 0.5), (0.2, 0.8), 2.0, 1.0),
    ((0.2, 0.5), (0.4, 0.1), -1.0, 0.0),
    ((0.2, 0.5), (0.4, 0.4), 0.0, 0.0),
    ((0.3, 0.3), (0.3, 0.3), 1.0, 1.0),
    ((0.3, 0.2), (0.3, 0.1), 1.0, 1.0),
    ((0.3, 0.3), (0.2, 0.5), math.inf, 1.0),
    ((0.3, 0.2), (0.2, 0.5), math.inf, 1.0),
  ],
)
def test_robustness_by_hand(unlearned, retrained, ratio, score):
  result = relearn.robustness(unlearned, retrained)
  assert result == pytest.approx((ratio, score))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: full_batch(()), r"steps is \(\)"),
    (lambda: full_batch((0, 3)), r"steps is \(0, 3\)"),
    (lambda: full_batch((5, 5)), r"steps is \(5, 5\)"),
    (
      lambda: relearn.robustness((0.1, math.nan), (0.0, 0.0)),
      "unlearned is .*finite",
    ),
  ],
)
def test_wrong_configuration_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
