"""Refusals against gradients by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import language
from junlearn.methods import idk
from tests import text


def test_weighted_sum_of_two_token_means():
  forget, retain, _ = text.request()
  result = text.descend(
    idk.transform, gamma=0.5, retain=language.Retain(weight=2.0)
  )

  def total(params):
    refusal = text.nll(params, forget["alternative"])
    return 0.5 * refusal + 2 * text.nll(params, retain)

  text.assert_descends(result, text.gradient(total))


def test_joined_is_one_mean_over_all_tokens():
  forget, retain, _ = text.request()
  result = text.descend(idk.transform, joined=True)

  def total(params):
    both = [
      text.answer_log_probs(params, part)[0]
      for part in (forget["alternative"], retain)
    ]
    return -jnp.mean(jnp.concatenate(both))

  text.assert_descends(result, text.gradient(total))
  halves = [
    float(text.nll(text.params(), part))
    for part in (forget["alternative"], retain)
  ]
  tokens = [np.sum(part["mask"]) for part in (forget["alternative"], retain)]
  assert tokens[0] != tokens[1]  # so that this is not the sum of two means
  np.testing.assert_allclose(
    result.info["steps"]["loss"],
    [np.average(halves, weights=tokens)],
    rtol=1e-5,
  )


@pytest.mark.parametrize("option", [{"gamma": 2.0}, {"retain": None}])
def test_joined_has_no_place_for_weights(option):
  with pytest.raises(ValueError, match="joined is True with gamma"):
    text.descend(idk.transform, joined=True, **option)


def test_needs_alternatives():
  forget, _, _ = text.request()
  bare = {k: v for k, v in forget.items() if k != "alternative"}
  with pytest.raises(ValueError, match="no `alternative`"):
    text.descend(idk.transform, text.request()._replace(forget=bare))
