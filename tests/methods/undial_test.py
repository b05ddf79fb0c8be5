"""Distillation from adjusted logits, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from junlearn import language
from junlearn.methods import undial
from junlearn.model import from_function
from tests import problems, text


def logits(params):
  forget = text.request().forget
  outputs, _ = problems.sentences().model.apply(params, forget["input"])
  return np.asarray(outputs, np.float64)


def expected(params, beta, all_positions=False):
  """The loss, token by token."""
  forget = text.request().forget
  old, new = logits(text.params()), logits(params)
  losses = []
  rows, length = np.asarray(forget["mask"]).shape
  for row in range(rows):
    for t in range(1, length):
      answer = bool(forget["mask"][row, t])
      if not (answer or all_positions):
        continue
      lowered = old[row, t - 1].copy()
      # The released code's label there is -100, an index from the end.
      place = int(forget["input"][row, t]) if answer else -100 % len(lowered)
      lowered[place] -= beta
      losses.append(-softmax(lowered) @ log_softmax(new[row, t - 1]))
  return np.mean(losses)


@pytest.mark.parametrize("all_positions", [False, True])
def test_both_losses_of_two_steps(all_positions):
  options = {"beta": 3.0, "all_positions": all_positions}
  descent = {"rate": 0.1, **options}
  first = text.descend(undial.transform, **descent)
  steps = text.descend(undial.transform, num_steps=2, **descent).info["steps"]
  np.testing.assert_allclose(
    steps["loss"],
    [expected(p, **options) for p in (text.params(), first.params)],
    rtol=1e-5,
  )
  assert steps["loss"][1] < steps["loss"][0]


def test_the_released_label_counts_from_the_end_of_the_vocabulary():
  """Token 3 of 103 is lowered where there is no answer: the loss feels it."""
  model = from_function(lambda params, tokens: params[tokens])
  params = jax.random.normal(text.KEY, (103, 103))
  examples = {
    "input": jnp.array([[5, 7, 9]]),
    "mask": jnp.array([[False, False, True]]),
  }
  loss = undial.distillation(model, beta=2.0, all_positions=True)
  found, _ = loss(params, params, examples)
  z = np.asarray(params, np.float64)[[5, 7]]
  lowered = z - 2.0 * np.eye(103)[[3, 9]]
  each = -(softmax(lowered, axis=1) * log_softmax(z, axis=1)).sum(axis=1)
  np.testing.assert_allclose(found, [each.mean()], rtol=1e-6)
  plain = undial.distillation(model, beta=2.0)
  np.testing.assert_allclose(
    plain(params, params, examples)[0], each[1:], rtol=1e-6
  )


def test_without_adjustment_the_start_is_the_optimum():
  result = text.descend(undial.transform, beta=0.0)
  zeros = jax.tree.map(np.zeros_like, text.params())
  text.assert_descends(result, zeros)


def test_the_retain_term_is_an_option():
  without = text.descend(undial.transform).info["steps"]
  assert set(without) == {"loss", "forget"}
  steps = text.descend(undial.transform, gamma=0.5, retain=language.KL).info[
    "steps"
  ]
  np.testing.assert_allclose(
    steps["loss"], 0.5 * steps["forget"] + steps["retain"], rtol=1e-5
  )
