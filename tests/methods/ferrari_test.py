"""Ferrari: its gradient, its variants, its stopping rule, on linear models."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import loop, tree
from junlearn.methods import ferrari
from junlearn.transform import Request
from tests import problems

KEY = jax.random.key(5)
RNG = np.random.default_rng(3)
INPUTS = RNG.normal(size=(8, 4)).astype(np.float32)
KERNEL = RNG.normal(size=(4, 3)).astype(np.float32)
BIAS = np.array([0.5, -0.2, 0.1], np.float32)
MODEL, PARAMS = problems.linear(KERNEL, BIAS)
COLUMN = np.array([False, True, False, False])


def request(**parts):
  return Request({"input": INPUTS, **parts}, None)


def gradient(examples=None, **options):
  """Of the objective on all examples at the given params."""
  objective = ferrari.lipschitz(MODEL, **options)
  examples = examples or {
    "input": jnp.asarray(INPUTS),
    "mask": jnp.broadcast_to(COLUMN, INPUTS.shape).astype(jnp.float32),
    "weight": jnp.ones(8),
  }

  def value(params):
    batch = Request(examples, None)
    return objective(params, batch, reference=None, key=KEY)[0]

  return jax.jit(jax.value_and_grad(value))(PARAMS)


def step(learning_rate=0.1, **options):
  """The params after one step on all examples."""
  options = {"num_steps": 1, "batch_size": 8, "mask": COLUMN, **options}
  transform = ferrari.transform(MODEL, optax.sgd(learning_rate), **options)
  return transform(KEY, PARAMS, request()).params


@pytest.mark.parametrize(("reduction", "factor"), [("sum", 8), ("mean", 1)])
def test_gradient_of_a_linear_model(reduction, factor):
  """s = |w_j| for the weights w_j of the column, so grad s = w_j / |w_j|.

  Whatever the draws are; nothing else moves.
  """
  loss, found = gradient(reduction=reduction, num_draws=3)
  norm = np.linalg.norm(KERNEL[1])
  assert loss == pytest.approx(factor * norm, rel=1e-5)
  expected = np.zeros((4, 3))
  expected[1] = factor * KERNEL[1] / norm
  np.testing.assert_allclose(found["kernel"], expected, atol=1e-4)
  np.testing.assert_allclose(found["bias"], 0, atol=1e-4)
  moved = step(reduction=reduction)
  np.testing.assert_allclose(
    moved["kernel"], KERNEL - 0.1 * expected, rtol=1e-4, atol=1e-5
  )


def test_gradient_through_one_branch_only():
  """Each branch alone has terms of x; together they cancel.

  With d = f(x) - f(x + delta), the clean branch alone has the gradient
  x d^T / (|d| |delta|), the perturbed one -(x + delta) d^T / (|d| |delta|).
  """
  both, clean, perturbed = (
    gradient(stop_gradient=branch)[1]
    for branch in ("none", "perturbed", "clean")
  )
  jax.tree.map(
    lambda a, b, c: np.testing.assert_allclose(a, b + c, atol=2e-3),
    both,
    clean,
    perturbed,
  )
  assert np.abs(clean["kernel"][0]).max() > 0.1
  # One example, one draw: the sign of delta alone is not known.
  examples = {
    "input": jnp.asarray(INPUTS[:1]),
    "mask": jnp.asarray(COLUMN, jnp.float32)[None],
    "weight": jnp.ones(1),
  }
  _, found = gradient(examples, stop_gradient="perturbed", num_draws=1)
  direction = np.abs(KERNEL[1] / np.linalg.norm(KERNEL[1]))
  size = np.abs(np.asarray(found["kernel"]))
  scale = size[0, 0] / np.abs(INPUTS[0, 0] * direction[0])
  np.testing.assert_allclose(
    size, scale * np.abs(np.outer(INPUTS[0], direction)), rtol=1e-4
  )
  np.testing.assert_allclose(
    np.abs(found["bias"]), scale * direction, rtol=1e-4
  )


def test_without_division_the_loss_is_the_output_change():
  """E |K^T M xi| sigma: of one column E|xi| E[sigma] |w_j|."""
  loss, _ = gradient(
    normalize=False, num_draws=4000, sigma=(0.5, 1.5), reduction="mean"
  )
  expected = np.sqrt(2 / np.pi) * np.linalg.norm(KERNEL[1])
  assert loss == pytest.approx(expected, rel=0.02)


def test_masks_of_examples():
  """Half of the examples mark column 0, half column 3: both shrink alike."""
  mask = np.zeros((8, 4), bool)
  mask[:4, 0] = mask[4:, 3] = True
  transform = ferrari.transform(
    MODEL, optax.sgd(0.1), num_steps=1, batch_size=8
  )
  moved = transform(KEY, PARAMS, request(mask=mask)).params["kernel"]
  for row in (0, 3):
    unit = KERNEL[row] / np.linalg.norm(KERNEL[row])
    np.testing.assert_allclose(moved[row], KERNEL[row] - 0.4 * unit, rtol=1e-4)
  np.testing.assert_allclose(moved[1:3], KERNEL[1:3], atol=1e-5)


def test_examples_with_an_empty_mask_take_no_part():
  mask = np.broadcast_to(COLUMN, INPUTS.shape).copy()
  mask[5:] = False
  poisoned = INPUTS.copy()
  poisoned[5:] = np.nan
  transform = ferrari.transform(
    MODEL, optax.sgd(0.1), num_steps=4, batch_size=5
  )
  result = jax.jit(transform)(
    KEY, PARAMS, Request({"input": poisoned, "mask": mask}, None)
  )
  assert result.info["finite"]
  only = jax.jit(transform)(
    KEY, PARAMS, Request({"input": INPUTS[:5], "mask": mask[:5]}, None)
  )
  steps = [r.info["steps"]["now"]["sensitivity"][-1] for r in (result, only)]
  np.testing.assert_allclose(*steps, rtol=1e-4)


def test_reads_neither_labels_nor_retained_examples():
  given = Request(
    {"input": INPUTS, "label": "none", "id": None}, retain="not even arrays"
  )
  transform = ferrari.transform(
    MODEL, optax.sgd(0.1), mask=COLUMN, num_steps=2, batch_size=4
  )
  result = transform(KEY, PARAMS, given)
  assert result.request is given
  assert tree.digest(result.params) == tree.digest(
    transform(KEY, PARAMS, request()).params
  )


@pytest.mark.parametrize("make_loop", [loop.scan, lambda: loop.host(every=7)])
def test_stops_at_the_share_of_the_sensitivity(make_loop):
  """|w_j| falls by 0.01 * 4 a step: the first look below 60 % is known."""
  transform = ferrari.transform(
    MODEL,
    optax.sgd(0.01),
    mask=COLUMN,
    num_steps=60,
    batch_size=4,
    sensitivity_fraction=0.6,
    check_every=3,
    loop=make_loop(),
  )
  result = transform(KEY, PARAMS, request())
  norm = np.linalg.norm(KERNEL[1])
  looks = norm - 0.04 * np.arange(0, 61, 3)
  reached = looks[looks <= 0.6 * norm][0]
  np.testing.assert_allclose(
    np.linalg.norm(result.params["kernel"][1]), reached, rtol=1e-4
  )
  steps = result.info["steps"]
  np.testing.assert_allclose(steps["first"]["sensitivity"], norm, rtol=1e-4)
  np.testing.assert_allclose(
    steps["now"]["sensitivity"][-1], reached, rtol=1e-4
  )
  assert steps["stopped"][-1]
  assert not steps["stopped"][0]


def test_stops_when_the_target_is_no_longer_predicted():
  """Both goals must be reached; the share of the target comes last here."""
  kernel = KERNEL.copy()
  kernel[1] = [6.0, 0.0, 0.0]
  inputs = INPUTS.copy()
  inputs[:, 1] = 1.0
  params = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(3)}
  options = {"num_steps": 200, "batch_size": 8, "mask": COLUMN}
  options |= {"check_every": 1}
  by_target, by_share, by_both = (
    jax.jit(ferrari.transform(MODEL, optax.sgd(0.01), **options, **goals))(
      KEY, params, Request({"input": inputs}, None)
    )
    for goals in (
      {"target": 0, "sensitivity_fraction": None, "target_fraction": 0.3},
      {"sensitivity_fraction": 0.9},
      {"target": 0, "sensitivity_fraction": 0.9, "target_fraction": 0.3},
    )
  )

  def taken(result):
    return int(np.sum(~result.info["steps"]["stopped"]))

  share = np.mean(
    np.argmax(inputs @ np.asarray(by_target.params["kernel"]), -1) == 0
  )
  now = by_target.info["steps"]["now"]
  assert now["target_fraction"][-1] == pytest.approx(share)
  assert share <= 0.3
  assert now["target_fraction"][taken(by_target) - 1] > 0.3
  assert taken(by_share) < taken(by_target) == taken(by_both)


@pytest.mark.parametrize("update", [False, True])
def test_batch_statistics_move_only_if_asked(update):
  problem = problems.normalized()
  mask = np.array([1, 0, 0, 0, 0, 0])
  before = problem.init()
  after = jax.jit(
    ferrari.transform(
      problem.model,
      optax.sgd(0.01),
      mask=mask,
      num_steps=2,
      batch_size=4,
      update_statistics=update,
    )
  )(KEY, before, problem.request).params
  old, new = (tree.digest(p["batch_stats"]) for p in (before, after))
  assert (old != new) == update


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"mask": np.zeros(4)}, "mask is empty"),
    ({"num_draws": 0}, "num_draws is 0"),
    ({"sigma": (0.0, 1.0)}, "sigma is"),
    ({"stop_gradient": "both"}, "stop_gradient is 'both'"),
    ({"reduction": "max"}, "reduction is 'max'"),
    ({"sensitivity_fraction": 1.5}, r"sensitivity_fraction is 1\.5"),
    ({"target_fraction": 1.0}, r"target_fraction is 1\.0"),
    ({"check_every": 0}, "every is 0"),
    ({"check_size": 0}, "check_size is 0"),
    ({"num_steps": -1}, "num_steps is -1"),
  ],
)
def test_wrong_configuration_is_named(options, message):
  options = {"num_steps": 1, "batch_size": 2, "mask": COLUMN, **options}
  with pytest.raises(ValueError, match=message):
    ferrari.transform(MODEL, optax.sgd(0.1), **options)


@pytest.mark.parametrize(
  ("mask", "given", "message"),
  [
    (np.ones(3), {}, r"mask has shape \(3,\)"),
    (None, {}, "mask is None and the forget examples have no 'mask'"),
    (None, {"mask": np.zeros((8, 4))}, "mask is empty for every"),
    (None, {"mask": np.ones((8, 2))}, r"mask has shape \(8, 2\)"),
  ],
)
def test_wrong_masks_are_refused(mask, given, message):
  transform = ferrari.transform(
    MODEL, optax.sgd(0.1), num_steps=1, batch_size=2, mask=mask
  )
  with pytest.raises(ValueError, match=message):
    transform(KEY, PARAMS, request(**given))
