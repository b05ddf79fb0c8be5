"""NPO against gradient ascent, to which its gradient is proportional."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit

from junlearn import language, loss
from junlearn.methods import ascent, npo
from tests import problems, text

FREE = {"retain": None}


def summed_ascent(model, optimizer, **options):
  return ascent.transform(model, optimizer, loss=npo.sequence_loss, **options)


def weighted_gradient(params, reference, beta):
  """Minus the gradient of `mean w (-S)`, the weights being constants."""
  forget = text.request().forget
  s, s_ref = text.sums(params, forget), text.sums(reference, forget)
  p, p_ref = (np.exp(np.asarray(x, np.float64)) for x in (s, s_ref))
  weights = 2 * p**beta / (p**beta + p_ref**beta)
  gradient = text.gradient(
    lambda q: jnp.mean(jnp.asarray(weights, s.dtype) * text.sums(q, forget)),
    params,
  )
  return weights, gradient


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_the_first_step_is_that_of_ascent(beta):
  ours = text.descend(npo.transform, beta=beta, **FREE)
  theirs = text.descend(summed_ascent)
  a, b = (
    text.vector(result.params) - text.vector(text.params())
    for result in (ours, theirs)
  )
  assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999
  assert np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(1, rel=1e-4)
  # log sigmoid(0) = -log 2
  np.testing.assert_allclose(
    ours.info["descend"]["steps"]["loss"], 2 / beta * np.log(2), rtol=1e-5
  )


def test_the_second_step_is_weighted_by_what_is_left():
  first = text.descend(npo.transform, beta=0.5, rate=0.5, **FREE)
  both = text.descend(npo.transform, beta=0.5, rate=0.5, num_steps=2, **FREE)
  weights, gradient = weighted_gradient(first.params, text.params(), 0.5)
  assert weights.min() < 0.7  # far enough from the reference to tell
  assert weights.max() < 1
  step = jax.tree.map(
    lambda old, new: (old - new) / 0.5, first.params, both.params
  )
  text.assert_close(step, gradient)


def test_small_beta_is_ascent_all_along():
  options = {"num_steps": 3, "rate": 0.02}
  ours = text.descend(npo.transform, beta=1e-3, **FREE, **options)
  theirs = text.descend(summed_ascent, **options)
  other = text.descend(npo.transform, beta=1.0, **FREE, **options)
  a, b, c = (text.vector(result.params) for result in (ours, theirs, other))
  moved = np.linalg.norm(b - text.vector(text.params()))
  assert np.linalg.norm(a - b) < 0.01 * moved
  assert np.linalg.norm(c - b) > 0.1 * moved


def test_the_loss_is_bounded_and_that_of_ascent_is_not():
  prefer = npo.preference(0.5)
  margins = jnp.array([-1e4, -10.0, 0.0, 10.0, 1e4])
  losses, slopes = jax.vmap(jax.value_and_grad(prefer))(margins)
  assert np.all(losses >= 0)
  assert losses[-1] == 0
  np.testing.assert_allclose(
    losses[1:3], 4 * np.log1p(np.exp([5.0, 0.0])), rtol=1e-6
  )
  # dL/dm = -w, w = 2 sigmoid(-beta m): from 2 to 0, and 1 at the reference.
  np.testing.assert_allclose(
    slopes, -2 * expit(-0.5 * np.asarray(margins)), atol=1e-6
  )


def test_retain_term_and_gamma():
  forget, retain, _ = text.request()
  result = text.descend(
    npo.transform, gamma=0.25, retain=language.Retain(weight=2.0)
  )

  def total(params):
    ascent = jnp.mean(text.sums(params, forget))
    return 0.25 * ascent + 2 * text.nll(params, retain)

  text.assert_descends(result, text.gradient(total))
  steps = result.info["descend"]["steps"]
  np.testing.assert_allclose(
    steps["retain"][0], text.nll(text.params(), retain), rtol=1e-5
  )


def test_the_reference_is_the_start_of_the_stage():
  stage = npo.remember(
    npo.sequence_loss(problems.sentences().model), batch_size=4
  )
  result = stage(text.KEY, text.params(1), text.request())
  expected = -text.sums(text.params(1), text.request().forget)
  np.testing.assert_allclose(
    result.request.extra["reference"], expected, rtol=1e-5
  )
  assert result.params is text.params(1)
  assert "reference" not in result.request.forget


def test_serves_classifiers():
  problem = problems.blobs()
  rows = len(problem.request.forget["label"])
  params = problem.init()

  def make(method, **options):
    return method.transform(
      problem.model,
      optax.sgd(0.1),
      loss=loss.cross_entropy,
      num_steps=1,
      batch_size=rows,
      **options,
    )(text.KEY, params, problem.request._replace(retain=None))

  text.assert_close(make(npo, **FREE).params, make(ascent).params)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_refuses_beta_out_of_range(beta):
  with pytest.raises(
    ValueError, match=re.escape(f"beta is {beta}; it must be finite")
  ):
    text.descend(npo.transform, beta=beta)
