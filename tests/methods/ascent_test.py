"""Gradient ascent against a step taken by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from junlearn import language, loss, objective
from junlearn.methods import ascent
from tests import problems, text


def test_one_full_batch_step_is_minus_the_gradient():
  problem = problems.blobs()
  params, forget = problem.init(), problem.request.forget
  result = ascent.transform(
    problem.model,
    optax.sgd(0.1),
    num_steps=1,
    batch_size=len(forget["label"]),
  )(jax.random.key(0), params, problem.request)

  def mean_loss(params):
    logits, _ = problem.model.apply(params, forget["input"])
    chosen = jax.nn.log_softmax(logits)[
      np.arange(len(forget["label"])), forget["label"]
    ]
    return -chosen.mean()

  value, gradient = jax.value_and_grad(mean_loss)(params)
  jax.tree.map(
    lambda new, old, g: np.testing.assert_allclose(
      new, old + 0.1 * g, rtol=1e-5, atol=1e-6
    ),
    result.params,
    params,
    gradient,
  )
  np.testing.assert_allclose(result.info["steps"]["loss"], [-value], rtol=1e-5)
  np.testing.assert_allclose(result.info["steps"]["forget"], [value], rtol=1e-5)


def test_needs_no_retained_examples():
  problem = problems.blobs()
  transform = jax.jit(
    ascent.transform(problem.model, optax.sgd(0.1), num_steps=3, batch_size=4)
  )
  key, params = jax.random.key(0), problem.init()
  without = problem.request._replace(retain=None)
  jax.tree.map(
    np.testing.assert_array_equal,
    transform(key, params, without).params,
    transform(key, params, problem.request).params,
  )


def test_raises_the_forget_loss():
  problem = problems.blobs()
  params, forget = problem.init(), problem.request.forget
  per_example = loss.cross_entropy(problem.model)
  result = ascent.transform(
    problem.model, optax.sgd(0.05), num_steps=5, batch_size=4
  )(jax.random.key(0), params, problem.request)
  before, after = (
    objective.mean(per_example(p, forget)[0], forget)
    for p in (params, result.params)
  )
  assert after > before


def test_text_is_ascended_by_the_token_or_by_the_answer():
  forget = text.request().forget
  for output_loss, mean in (
    (language.token_nll, text.nll),
    (language.mean_nll, lambda *args: -jnp.mean(text.means(*args))),
  ):
    result = text.descend(
      ascent.transform,
      loss=functools.partial(language.cross_entropy, output_loss=output_loss),
    )
    gradient = text.gradient(lambda p, mean=mean: -mean(p, forget))
    text.assert_descends(result, gradient)
