"""Gradients of probes against dense gradients of the model as it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from junlearn.model import from_linen
from junlearn.nn.adapters import lora, probe
from tests.nn.nets import HIDDEN, LAYERS, WIDTH, Stack

KEY = jax.random.key(0)
ALPHA, RANK = 6.0, 3
SCALE = ALPHA / RANK
INPUTS = jax.random.normal(jax.random.key(1), (4, WIDTH), jnp.float32)
MODEL = from_linen(Stack())
PROBED = probe.probe(MODEL.apply, alpha=ALPHA)


@functools.cache
def probed_params():
  params = MODEL.init(KEY, INPUTS)
  return probe.attach(KEY, params, "up|down", rank=RANK)


def energy(apply, params, inputs):
  return jnp.sum(jnp.sin(apply(params, inputs)[0]))


@functools.partial(jax.jit, static_argnums=0)
def gradients(apply, params, inputs):
  """Of each row on its own, and with respect to the row."""

  def one(row):
    return jax.grad(energy, argnums=(1, 2))(apply, params, row[None])

  return jax.vmap(one)(inputs)


def test_factors_are_orthonormal_and_differ():
  factors = probed_params()["lora"]["layers"]
  for name, sides in (("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
    a, b = factors[name]["a"], factors[name]["b"]
    assert a.shape == (LAYERS, sides[0], RANK)
    assert b.shape == (LAYERS, RANK, sides[1])
    identity = np.broadcast_to(np.eye(RANK), (LAYERS, RANK, RANK))
    np.testing.assert_allclose(a.mT @ a, identity, atol=1e-5)
    np.testing.assert_allclose(b @ b.mT, identity, atol=1e-5)
    assert np.abs(a[0] - a[1]).max() > 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_are_exactly_those_of_the_model(dtype):
  params, inputs = jax.tree.map(
    lambda leaf: leaf.astype(dtype), (probed_params(), INPUTS)
  )
  expected, _ = jax.jit(MODEL.apply)(params, inputs)
  np.testing.assert_array_equal(jax.jit(PROBED)(params, inputs)[0], expected)
  # As an adapter, the same factors do change the outputs.
  adapted = lora.adapt_model(MODEL, alpha=ALPHA)
  changed, _ = jax.jit(adapted.apply)(params, inputs)
  assert jnp.max(jnp.abs(changed - expected)) > 0.1


def test_factors_get_both_sketches_of_each_example_and_nothing_else_changes():
  params = probed_params()
  found, upstream = gradients(PROBED, params, INPUTS)
  expected, untouched = gradients(MODEL.apply, params, INPUTS)
  np.testing.assert_array_equal(upstream, untouched)
  jax.tree.map(
    np.testing.assert_array_equal, found["params"], expected["params"]
  )
  for name in ("up", "down"):
    dense = expected["params"]["layers"][name]["kernel"]  # [n, layers, in, out]
    factors = params["lora"]["layers"][name]
    sketches = found["lora"]["layers"][name]
    assert np.abs(dense).max() > 0.1
    for sketch, exact in (
      (sketches["a"], SCALE * dense @ factors["b"].mT),
      (sketches["b"], SCALE * factors["a"].mT @ dense),
    ):
      np.testing.assert_allclose(sketch, exact, atol=1e-5)


def test_a_low_rank_gradient_is_recovered_from_its_sketches():
  model = from_linen(linen.Dense(HIDDEN))
  params = probe.attach(KEY, model.init(KEY, INPUTS), "", rank=RANK)
  probed = probe.probe(model.apply, alpha=RANK)
  few = INPUTS[: RANK - 1]  # the gradient's rank
  full = jax.grad(energy, argnums=1)(model.apply, params, few)["params"]
  sketch = jax.grad(energy, argnums=1)(probed, params, few)["lora"]
  right, left = (np.asarray(sketch[name], np.float64) for name in "ab")
  core = np.asarray(params["lora"]["a"], np.float64).T @ right
  recovered = right @ np.linalg.pinv(core, rcond=1e-3) @ left
  np.testing.assert_allclose(recovered, full["kernel"], atol=1e-4)
