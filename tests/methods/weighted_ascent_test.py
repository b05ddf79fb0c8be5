"""Ascent with token weights against gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import language
from junlearn.methods import ascent, weighted_ascent
from junlearn.methods.weighted_ascent import SATIMP, WGA
from tests import text


@pytest.mark.parametrize(
  ("setting", "weight"),
  [(WGA, lambda p: p), (SATIMP, lambda p: p**5 * (1 - p))],
)
def test_the_weights_are_constants(setting, weight):
  forget, params = text.request().forget, text.params()
  result = text.descend(weighted_ascent.transform, retain=None, **setting)
  log_probs, _ = text.answer_log_probs(params, forget)
  weights = jnp.asarray(weight(np.exp(log_probs)))

  def total(params):
    return jnp.mean(weights * text.answer_log_probs(params, forget)[0])

  gradient = text.gradient(total)
  size = np.abs(text.vector(gradient)).max()
  gamma = setting["gamma"]
  text.assert_descends(
    result,
    jax.tree.map(lambda g: gamma * g, gradient),
    atol=max(1e-4 * gamma * size, 1e-7),
  )
  np.testing.assert_allclose(
    result.info["steps"]["loss"],
    [gamma * np.mean(weights * log_probs)],
    rtol=1e-4,
  )


def test_without_exponents_it_is_plain_ascent():
  ours = text.descend(weighted_ascent.transform, exponent=0, retain=None)
  theirs = text.descend(ascent.transform, loss=language.cross_entropy)
  text.assert_close(ours.params, theirs.params)


@pytest.mark.parametrize("setting", [WGA, SATIMP])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_tokens_have_finite_gradients(setting, p):
  logits = jnp.log(jnp.array([[[1 - p, p], [0.5, 0.5]]])).clip(-300)
  examples = {
    "input": jnp.array([[0, 1]]),
    "mask": jnp.array([[False, True]]),
  }
  exponents = {k: v for k, v in setting.items() if k != "gamma"}
  loss = weighted_ascent.weighted_nll(**exponents)
  value, gradient = jax.value_and_grad(lambda z: loss(z, examples)[0])(logits)
  np.testing.assert_allclose(value, 0, atol=1e-6)
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("name", ["exponent", "complement"])
def test_refuses_negative_exponents(name):
  with pytest.raises(ValueError, match=f"{name} is -1"):
    text.descend(weighted_ascent.transform, **{name: -1})
