"""One protocol over linen, nnx and plain functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from junlearn.model import (
  freeze_statistics,
  from_function,
  from_linen,
  from_nnx,
)

KEY = jax.random.key(0)
INPUTS = 2 + 3 * jax.random.normal(jax.random.key(1), (16, 5))


class LinenNet(linen.Module):
  """The network that NnxNet is too."""

  @linen.compact
  def __call__(self, x, train: bool = False):
    x = linen.Dense(8)(x)
    x = linen.BatchNorm(use_running_average=not train, momentum=0.8)(x)
    return linen.Dense(3)(linen.relu(x))


class NnxNet(nnx.Module):
  def __init__(self, rngs):
    self.first = nnx.Linear(5, 8, rngs=rngs)
    self.norm = nnx.BatchNorm(8, momentum=0.8, rngs=rngs)
    self.last = nnx.Linear(8, 3, rngs=rngs)

  def __call__(self, x):
    return self.last(nnx.relu(self.norm(self.first(x))))


class LinenDropout(linen.Module):
  """Switched by flax's other argument."""

  @linen.compact
  def __call__(self, x, deterministic: bool):
    x = linen.Dropout(0.25)(linen.Dense(6)(x), deterministic=deterministic)
    return linen.Dropout(0.25)(x, deterministic=deterministic)


class NnxDropout(nnx.Module):
  def __init__(self, rngs):
    self.dense = nnx.Linear(5, 6, rngs=rngs)
    self.one = nnx.Dropout(0.25, rngs=rngs)
    self.other = nnx.Dropout(0.25, rngs=rngs)

  def __call__(self, x):
    return self.other(self.one(self.dense(x)))


NETS = {
  "linen": from_linen(LinenNet()),
  "linen dense": from_linen(linen.Dense(3)),
  "linen dropout": from_linen(LinenDropout()),
  "nnx": from_nnx(lambda rngs: NnxNet(rngs)),
  "nnx dropout": from_nnx(lambda rngs: NnxDropout(rngs)),
  "function": from_function(
    lambda w, x: x @ w, lambda key, x: jax.random.normal(key, (x.shape[1], 3))
  ),
}
NORMED = ("linen", "nnx")
DROPPING = ("linen dropout", "nnx dropout")


@pytest.fixture(params=NETS)
def name(request):
  return request.param


@pytest.fixture
def model(name):
  return NETS[name]


def linen_params(params):
  """The variables of LinenNet from those of NnxNet."""
  learned, state = params["params"], params["state"]
  return {
    "params": {
      "Dense_0": learned["first"],
      "BatchNorm_0": learned["norm"],
      "Dense_1": learned["last"],
    },
    "batch_stats": {"BatchNorm_0": state["norm"]},
  }


def fresh(model, key=KEY, inputs=INPUTS):
  return jax.jit(model.init)(key, inputs)


def assert_trees_close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_evaluation_hands_back_the_params_themselves(model):
  params = fresh(model)
  outputs, same = model.apply(params, INPUTS)
  assert outputs.shape[0] == 16
  assert same is params
  np.testing.assert_array_equal(outputs, model.apply(params, INPUTS)[0])


def test_training_keeps_structure_shapes_and_dtypes(model):
  params = jax.eval_shape(model.init, KEY, INPUTS)
  _, refreshed = jax.eval_shape(model.apply, params, INPUTS, KEY)
  assert jax.tree.structure(refreshed) == jax.tree.structure(params)
  assert jax.tree.leaves(refreshed) == jax.tree.leaves(params)


def test_training_changes_state_only_where_there_are_statistics(name, model):
  params = fresh(model)
  _, refreshed = jax.jit(model.apply)(params, INPUTS, KEY)
  if name in NORMED:
    state = "state" if name == "nnx" else "batch_stats"
    for old, new in zip(
      jax.tree.leaves(params.pop(state)),
      jax.tree.leaves(refreshed.pop(state)),
      strict=True,
    ):
      assert not np.allclose(old, new)
  assert_trees_close(params, refreshed, rtol=0)


def test_init_depends_on_its_key_and_not_on_the_inputs_values(model):
  params = fresh(model)
  again = model.init(KEY, jnp.zeros_like(INPUTS))
  assert_trees_close(params, again, rtol=0)
  other = model.init(jax.random.key(9), INPUTS)
  leaves = zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True)
  assert any(not np.array_equal(a, b) for a, b in leaves)


def test_nnx_models_can_be_mapped_over_keys():
  model = NETS["nnx"]
  keys = jax.random.split(KEY, 3)
  many = jax.jit(jax.vmap(model.init, (0, None)))(keys, INPUTS)
  assert_trees_close(
    jax.tree.map(lambda leaf: leaf[2], many),
    model.init(keys[2], INPUTS),
    rtol=1e-6,
  )


def test_linen_and_nnx_agree_in_outputs_statistics_and_gradients():
  ours, theirs = NETS["nnx"], NETS["linen"]
  params = fresh(ours)
  reference = linen_params(params)
  close = {"rtol": 1e-5, "atol": 1e-6}
  np.testing.assert_allclose(
    ours.apply(params, INPUTS)[0], theirs.apply(reference, INPUTS)[0], **close
  )

  outputs, refreshed = jax.jit(ours.apply)(params, INPUTS, KEY)
  expected, their_refreshed = jax.jit(theirs.apply)(reference, INPUTS, KEY)
  np.testing.assert_allclose(outputs, expected, **close)
  assert_trees_close(linen_params(refreshed), their_refreshed, **close)
  np.testing.assert_allclose(
    ours.apply(refreshed, INPUTS)[0],
    theirs.apply(their_refreshed, INPUTS)[0],
    **close,
  )

  def grads(model, params, free):
    def loss(free):
      outputs, _ = model.apply({**params, "params": free}, INPUTS, KEY)
      return jnp.sum(jnp.square(outputs))

    return jax.jit(jax.grad(loss))(free)

  assert_trees_close(
    linen_params({**params, "params": grads(ours, params, params["params"])})[
      "params"
    ],
    grads(theirs, reference, reference["params"]),
    rtol=1e-4,
    atol=1e-3,
  )


def test_statistics_are_running_means_of_the_batches():
  params = fresh(NETS["linen"])
  _, refreshed = NETS["linen"].apply(params, INPUTS, KEY)
  dense = params["params"]["Dense_0"]
  hidden = np.asarray(INPUTS) @ np.asarray(dense["kernel"])
  statistics = refreshed["batch_stats"]["BatchNorm_0"]
  np.testing.assert_allclose(
    statistics["mean"], 0.2 * hidden.mean(axis=0), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    statistics["var"], 0.8 + 0.2 * hidden.var(axis=0), rtol=1e-4
  )


def test_jvp_through_nnx_is_the_directional_difference(x64):
  def double(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)

  model = NETS["nnx"]
  params = double(fresh(model))
  inputs = double(INPUTS)
  tangent = jax.tree.map(jnp.cos, params["params"])

  @jax.jit
  def outputs(free):
    return model.apply({**params, "params": free}, inputs)[0]

  def moved(t):
    return outputs(
      jax.tree.map(lambda p, v: p + t * v, params["params"], tangent)
    )

  _, directional = jax.jvp(outputs, (params["params"],), (tangent,))
  numerical = (moved(1e-6) - moved(-1e-6)) / 2e-6
  np.testing.assert_allclose(directional, numerical, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_is_active_with_a_key_and_unbiased(name):
  model = NETS[name]
  params = fresh(model)
  plain = np.asarray(model.apply(params, INPUTS)[0])
  keys = jax.random.split(KEY, 1000)
  draw = jax.jit(jax.vmap(lambda k: model.apply(params, INPUTS, k)[0]))
  drawn = np.asarray(draw(keys), np.float64)
  np.testing.assert_array_equal(drawn[:3], draw(keys[:3]))

  # Two independent masks of rate 1/4: kept with probability 9/16, scaled.
  kept = drawn != 0
  np.testing.assert_allclose(
    drawn[kept],
    np.broadcast_to(plain * 16 / 9, drawn.shape)[kept],
    rtol=1e-4,
    atol=1e-5,
  )
  deviation = np.sqrt(9 / 16 * 7 / 16 / kept.size)
  assert abs(kept.mean() - 9 / 16) < 4 * deviation
  # Masks of different examples and of different keys are independent.
  assert np.ptp(kept.mean(axis=0)) < 0.15
  assert len({mask.tobytes() for mask in kept}) == 1000


@pytest.mark.parametrize("name", ["linen", "nnx dropout"])
def test_frozen_statistics_mean_evaluation_even_with_a_key(name):
  frozen = freeze_statistics(NETS[name])
  params = fresh(frozen)
  outputs, same = frozen.apply(params, INPUTS, KEY)
  assert same is params
  np.testing.assert_array_equal(outputs, NETS[name].apply(params, INPUTS)[0])


def test_half_precision_params_stay_so():
  module = linen.Dense(3, param_dtype=jnp.bfloat16, dtype=jnp.bfloat16)
  model = from_linen(module)
  params = fresh(model)
  _, refreshed = model.apply(params, INPUTS, KEY)
  assert {leaf.dtype for leaf in jax.tree.leaves(refreshed)} == {
    jnp.dtype(jnp.bfloat16)
  }


def test_a_function_without_init_cannot_be_retrained():
  model = from_function(lambda w, x: x @ w)
  with pytest.raises(ValueError, match="init was not given"):
    model.init(KEY, INPUTS)
