"""Risks and weighted sums of mean losses, by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.objective import mean, relative, risk, total, weighted
from junlearn.transform import Request, stage_key

KEY = jax.random.key(0)


def squared(params, examples, key=None):
  del key
  return jnp.square(examples["input"] - params), params


def part(*values, weight=None):
  examples = {"input": jnp.array(values)}
  if weight is not None:
    examples["weight"] = jnp.array(weight)
  return examples


def test_weighted_sum_by_hand():
  objective = weighted(squared, retain=2.0, forget=-0.5)
  batch = Request(forget=part(3.0, 5.0), retain=part(1.0, 0.0, 2.0))
  loss, (params, terms) = objective(
    jnp.float32(1.0), batch, reference=None, key=KEY
  )
  assert set(terms) == {"retain", "forget"}
  assert float(terms["forget"]) == pytest.approx((4 + 16) / 2)
  assert float(terms["retain"]) == pytest.approx(2 / 3)
  assert float(loss) == pytest.approx(2 * 2 / 3 - 0.5 * 10)
  assert float(params) == 1.0


def test_gradient_ascends_along_negative_weights():
  objective = weighted(squared, forget=-1.0)
  batch = Request(forget=part(3.0, 5.0), retain=None)
  gradient = jax.grad(
    lambda p: objective(p, batch, reference=None, key=KEY)[0]
  )(jnp.float32(1.0))
  assert float(gradient) == pytest.approx(2 * 3.0)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
def test_weight_0_means_absent(dtype):
  weight = np.array([1, 0, 0, 1], dtype)
  losses = jnp.array([1.0, 50.0, 60.0, 4.0])
  assert float(mean(losses, {"weight": jnp.array(weight)})) == 2.5
  objective = weighted(squared, retain=1.0)
  values = np.array([1.0, 5.0, 6.0, 2.0], np.float32)

  def run(examples):
    return jax.value_and_grad(
      lambda p: objective(p, Request(None, examples), reference=None, key=KEY)[
        0
      ]
    )(jnp.float32(0.5))

  present = part(*values[weight.astype(bool)])
  np.testing.assert_allclose(
    run({"input": jnp.array(values), "weight": jnp.array(weight)}),
    run(present),
    rtol=1e-6,
  )


def test_mean_of_nothing_is_zero_with_zero_gradient():
  value, slope = jax.value_and_grad(
    lambda p: mean(p * jnp.ones(3), {"weight": jnp.zeros(3)})
  )(2.0)
  assert (float(value), float(slope)) == (0.0, 0.0)


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (2,), (), (1,)])
def test_weights_are_one_a_loss(shape):
  """Others would be broadcast, to a mean of something else."""
  examples = {"weight": jnp.ones(shape)}
  with pytest.raises(ValueError, match=r"weight has shape .* must be that of"):
    mean(jnp.array([1.0, 2.0, 6.0]), examples)
  whole = jnp.ones((3, 1))
  assert float(mean(whole, {"weight": whole})) == 1.0


def test_mean_of_examples_without_weights():
  losses = jnp.array([1.0, 2.0, 6.0])
  assert float(mean(losses, {"input": losses})) == 3.0
  assert float(mean(losses, losses)) == 3.0


def test_statistics_flow_through_the_parts_and_keys_are_the_parts_own():
  seen = {}

  def loss(params, examples, key=None):
    seen[examples["name"]] = jax.random.key_data(key)
    count = params["count"] * 10 + examples["digit"]
    return jnp.ones(1), {"count": count}

  batch = Request(
    forget={"name": "forget", "digit": 1},
    retain={"name": "retain", "digit": 2},
    extra={"name": "extra", "digit": 3},
  )
  objective = weighted(loss, extra=1.0, forget=1.0, retain=1.0)
  _, (params, _) = objective({"count": 0}, batch, reference=None, key=KEY)
  assert params == {"count": 312}
  for name, data in seen.items():
    np.testing.assert_array_equal(
      data, jax.random.key_data(stage_key(KEY, name))
    )


def test_relative_losses_read_the_reference():
  def moved(params, reference, examples, key=None):
    losses, _ = squared(params - reference, examples, key)
    return losses, params + 1

  objective = relative(moved, forget=-1.0, extra=0.5)
  batch = Request(forget=part(3.0, 5.0), retain=None, extra=part(2.0))
  loss, (params, terms) = objective(
    jnp.float32(4.0), batch, reference=jnp.float32(3.0), key=KEY
  )
  assert float(terms["forget"]) == pytest.approx((4 + 16) / 2)
  assert float(terms["extra"]) == pytest.approx(0)  # 5 - 3 is 2
  assert float(loss) == pytest.approx(-10)
  assert float(params) == 6


def test_a_total_is_a_sum_through_which_statistics_flow():
  def term(name, weight):
    def objective(params, batch, *, reference, key):
      assert (batch, reference) == ("batch", "reference")
      assert key is KEY
      return weight * params, (10 * params + weight, {name: params, "n": name})

    return objective

  loss, (params, terms) = total(term("a", 2), term("b", 3))(
    1, "batch", reference="reference", key=KEY
  )
  # The second reads what the first returned: 12.
  assert loss == 2 * 1 + 3 * 12
  assert params == 123
  assert terms == {"a": 1, "b": 12, "n": "b"}


def test_a_total_of_nothing_is_refused():
  with pytest.raises(ValueError, match="no objectives were given"):
    total()


@pytest.mark.parametrize("make", [weighted, relative])
@pytest.mark.parametrize("weights", [{}, {"forgot": 1.0}])
def test_unknown_parts_are_refused(make, weights):
  with pytest.raises(ValueError, match="forget, retain, extra"):
    make(squared, **weights)


def test_a_missing_part_is_named():
  objective = weighted(squared, extra=1.0)
  with pytest.raises(ValueError, match="no extra examples"):
    objective(1.0, Request(part(1.0), part(1.0)), reference=None, key=KEY)


def test_loss_keeps_the_dtype_of_the_model():
  def half(params, examples, key=None):
    del key
    return params * examples, params

  objective = weighted(half, retain=1.0)
  loss, _ = objective(
    jnp.bfloat16(2),
    Request(None, jnp.ones(3, jnp.bfloat16)),
    reference=None,
    key=KEY,
  )
  assert loss.dtype == jnp.bfloat16


def test_risk_by_hand():
  """2 mean (x - p)^2 + 3/2 (p^2 + q^2), of two leaves."""

  def loss(params, examples):
    return squared(params["p"], examples)

  value = risk(loss, l2=3.0, scale=lambda examples: 2.0)
  params = {"p": jnp.float32(1), "q": jnp.array([2.0, 1.0])}
  examples = part(1.0, 3.0, 9.0, weight=[1.0, 0.5, 0.0])
  result, slope = jax.value_and_grad(value)(params, examples)
  assert float(result) == pytest.approx(2 * (0.5 * 4) / 1.5 + 1.5 * 6)
  assert float(slope["p"]) == pytest.approx(2 * (0.5 * -4) / 1.5 + 3)
  np.testing.assert_allclose(slope["q"], [6, 3])
  nothing = part(1.0, 3.0, weight=[0.0, 0.0])
  assert float(value(params, nothing)) == pytest.approx(9)


def test_risk_reads_the_examples_for_its_scale():
  value = risk(squared, l2=0.0, scale=lambda examples: examples["input"].size)
  assert float(value(jnp.float32(0), part(1.0, 2.0))) == pytest.approx(5)


def test_risk_is_in_evaluation_mode():
  def loss(params, examples, key=None):
    assert key is None
    return squared(params, examples)

  assert float(risk(loss, l2=0)(jnp.float32(0), part(2.0))) == 4


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_risk_keeps_the_dtype_of_the_model(dtype):
  value = risk(
    squared, l2=np.float64(0.1), scale=lambda examples: np.float64(2)
  )
  examples = {"input": jnp.ones(3, dtype)}
  result, slope = jax.value_and_grad(value)(jnp.asarray(2, dtype), examples)
  assert result.dtype == slope.dtype == dtype


@pytest.mark.parametrize("l2", [-0.1, float("nan")])
def test_risk_refuses_a_negative_penalty(l2):
  with pytest.raises(
    ValueError, match=re.escape(f"l2 is {l2}; it must be at least 0")
  ):
    risk(squared, l2=l2)
