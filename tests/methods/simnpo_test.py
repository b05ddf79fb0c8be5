"""SimNPO against its weights, written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.methods import simnpo
from tests import text


@pytest.mark.parametrize(("beta", "delta"), [(4.5, 0.0), (0.7, 1.5)])
def test_gradient_is_ascent_weighted_and_shared_by_the_tokens(beta, delta):
  forget = text.request().forget
  params = text.params()
  result = text.descend(
    simnpo.transform, beta=beta, delta=delta, gamma=1.0, retain=None
  )
  mean = np.asarray(text.means(params, forget), np.float64)
  q = (np.exp(delta) * np.exp(mean)) ** beta
  weights = jnp.asarray(2 * q / (1 + q), jnp.float32)
  lengths = np.asarray(forget["mask"]).sum(axis=1).astype(np.float32)
  assert len(set(lengths)) == 2
  gradient = text.gradient(
    lambda p: jnp.mean(weights / lengths * text.sums(p, forget))
  )
  text.assert_descends(result, gradient)
  expected = -2 / beta * np.log(1 / (1 + np.exp(beta * (mean + delta))))
  np.testing.assert_allclose(
    result.info["steps"]["loss"], [expected.mean()], rtol=1e-5
  )


def test_default_weights_of_the_terms():
  steps = text.descend(simnpo.transform).info["steps"]
  np.testing.assert_allclose(
    steps["loss"], 0.125 * steps["forget"] + steps["retain"], rtol=1e-6
  )


def test_refuses_beta_out_of_range():
  with pytest.raises(ValueError, match="beta is 0"):
    text.descend(simnpo.transform, beta=0)
