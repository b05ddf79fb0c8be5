"""Preference of another answer against gradients by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import language
from junlearn.methods import dpo
from tests import text


def ratio(params):
  """`S(y_alternative) - S(y)`, `[n]`."""
  forget = text.request().forget
  better = text.sums(params, forget["alternative"])
  return better - text.sums(params, forget)


def test_the_first_step_raises_one_answer_and_lowers_the_other():
  result = text.descend(dpo.transform, beta=0.3, retain=None)
  gradient = text.gradient(lambda p: -jnp.mean(ratio(p)))
  text.assert_descends(result, gradient)


def test_the_second_loss_is_relative_to_the_start():
  options = {"beta": 0.3, "retain": None, "rate": 0.2}
  after = text.descend(dpo.transform, **options).params
  steps = text.descend(dpo.transform, num_steps=2, **options).info
  gain = np.asarray(ratio(after) - ratio(text.params()), np.float64)
  assert gain.mean() > 0.1
  np.testing.assert_allclose(
    steps["descend"]["steps"]["loss"],
    [2 / 0.3 * np.log(2), np.mean(2 / 0.3 * np.log1p(np.exp(-0.3 * gain)))],
    rtol=1e-4,
  )


def test_tofu_s_own_form_is_a_gamma():
  """-E log sigmoid(beta margin), without 2 / beta and without retain."""
  result = text.descend(dpo.transform, beta=0.3, gamma=0.15, retain=None)
  np.testing.assert_allclose(
    result.info["descend"]["steps"]["loss"], np.log(2), rtol=1e-5
  )


def test_has_a_retain_term():
  result = text.descend(dpo.transform, retain=language.Retain(weight=2.0))
  steps = result.info["descend"]["steps"]
  np.testing.assert_allclose(
    steps["loss"], steps["extra"] + 2 * steps["retain"], rtol=1e-5
  )


def test_needs_alternatives():
  forget, _, _ = text.request()
  bare = {k: v for k, v in forget.items() if k != "alternative"}
  with pytest.raises(ValueError, match="no `alternative`"):
    text.descend(dpo.transform, text.request()._replace(forget=bare))
