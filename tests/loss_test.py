"""Per-example losses against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from junlearn.loss import cross_entropy, of_outputs, softmax_cross_entropy
from junlearn.model import Model, from_function

LABELS = np.array([0, 1, 2, 2, 1, 0], np.int32)


def logits(scale=5.0):
  rng = np.random.default_rng(0)
  return (scale * rng.normal(size=(6, 3))).astype(np.float32)


def negative_log_likelihood(scores):
  return -scipy.special.log_softmax(scores.astype(np.float64), axis=1)[
    np.arange(6), LABELS
  ]


@pytest.mark.parametrize("scale", [1.0, 5.0, 1e4])
def test_softmax_cross_entropy_is_the_negative_log_likelihood(scale):
  scores = logits(scale)
  np.testing.assert_allclose(
    softmax_cross_entropy(scores, {"label": LABELS}),
    negative_log_likelihood(scores),
    rtol=1e-5,
    atol=1e-6,
  )


def test_cross_entropy_is_that_of_a_models_outputs():
  rng = np.random.default_rng(1)
  inputs = rng.normal(size=(6, 4)).astype(np.float32)
  weights = rng.normal(size=(4, 3)).astype(np.float32)
  loss = cross_entropy(from_function(lambda w, x: x @ w))
  losses, params = loss(weights, {"input": inputs, "label": LABELS})
  np.testing.assert_allclose(
    losses, negative_log_likelihood(inputs @ weights), rtol=1e-4, atol=1e-5
  )
  assert params is weights


def test_any_loss_of_outputs_keys_and_refreshed_params():
  """The key goes to the model, and its params come back."""

  def apply(params, inputs, key=None):
    if key is None:
      return params * inputs, params
    return params * inputs, params + jax.random.uniform(key)

  def absolute(outputs, examples):
    return jnp.abs(outputs - examples["target"])

  loss = of_outputs(Model(None, apply), absolute)
  examples = {"input": jnp.arange(3.0), "target": jnp.ones(3)}
  losses, params = loss(jnp.float32(2), examples)
  np.testing.assert_array_equal(losses, [1, 1, 3])
  assert params == 2
  key = jax.random.key(3)
  losses, params = loss(jnp.float32(2), examples, key)
  np.testing.assert_array_equal(losses, [1, 1, 3])
  assert params == 2 + jax.random.uniform(key)
