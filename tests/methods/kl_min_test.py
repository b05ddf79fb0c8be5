"""KL minimization against gradients by hand, and SciPy's divergence."""

import jax
import numpy as np
from scipy.special import rel_entr

from junlearn import language
from junlearn.methods import grad_difference, kl_min
from tests import problems, text


def probabilities(params, examples):
  logits, _ = problems.sentences().model.apply(params, examples["input"])
  return np.asarray(jax.nn.softmax(logits), np.float64)


def test_the_first_step_is_ascent_alone():
  """At the reference the divergence and its gradient are zero."""
  result = text.descend(kl_min.transform, gamma=0.5)
  gradient = text.gradient(lambda p: text.nll(p, text.request().forget))
  text.assert_descends(result, jax.tree.map(lambda g: -0.5 * g, gradient))
  np.testing.assert_allclose(result.info["steps"]["retain"], 0, atol=1e-6)


def test_the_second_loss_has_the_divergence_from_the_start():
  retain = text.request().retain
  after = text.descend(kl_min.transform, rate=0.1).params
  mask = np.asarray(retain["mask"])[:, 1:]
  for all_positions in (False, True):
    steps = text.descend(
      kl_min.transform,
      num_steps=2,
      rate=0.1,
      retain=language.Retain(3.0, "kl", all_positions),
    ).info["steps"]
    each = rel_entr(
      probabilities(text.params(), retain), probabilities(after, retain)
    ).sum(axis=-1)
    expected = each.mean() if all_positions else each[:, :-1][mask].mean()
    assert expected > 0.01
    np.testing.assert_allclose(steps["retain"][1], expected, rtol=1e-4)
    np.testing.assert_allclose(
      steps["loss"], 3 * steps["retain"] - steps["forget"], rtol=1e-4
    )


def test_of_likelihood_it_is_gradient_difference():
  ours = text.descend(kl_min.transform, retain=language.NLL)
  theirs = text.descend(
    grad_difference.transform, alpha=0.5, loss=language.cross_entropy, rate=2.0
  )
  text.assert_close(ours.params, theirs.params)
