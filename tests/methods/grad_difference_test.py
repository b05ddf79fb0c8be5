"""NegGrad+ against a step taken by hand."""

import jax
import numpy as np
import optax
import pytest

from junlearn import language, loss
from junlearn.methods import grad_difference
from tests import problems, text


def make(problem, alpha, batch_size):
  return grad_difference.transform(
    problem.model,
    optax.sgd(0.1),
    alpha=alpha,
    num_steps=1,
    batch_size=batch_size,
  )


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_one_full_batch_step(alpha):
  problem = problems.blobs()
  # Parts of one size, so that one batch holds all of each.
  forget, retain = (
    {name: leaf[:8] for name, leaf in part.items()}
    for part in (problem.request.forget, problem.request.retain)
  )
  request = problem.request._replace(forget=forget, retain=retain)
  params = problem.init()
  result = make(problem, alpha, 8)(jax.random.key(0), params, request)
  per_example = loss.cross_entropy(problem.model)
  of_retain, of_forget = (
    jax.grad(lambda p, part=part: per_example(p, part)[0].mean())(params)
    for part in (retain, forget)
  )
  jax.tree.map(
    lambda new, old, r, f: np.testing.assert_allclose(
      new, old - 0.1 * (alpha * r - (1 - alpha) * f), rtol=1e-5, atol=1e-6
    ),
    result.params,
    params,
    of_retain,
    of_forget,
  )


def test_info_has_both_terms():
  problem = problems.blobs()
  steps = make(problem, 0.8, 10)(
    jax.random.key(0), problem.init(), problem.request
  ).info["steps"]
  np.testing.assert_allclose(
    steps["loss"], 0.8 * steps["retain"] - 0.2 * steps["forget"], rtol=1e-5
  )


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_refuses_alpha_out_of_range(alpha):
  with pytest.raises(ValueError, match="alpha is"):
    make(problems.blobs(), alpha, 4)


def test_needs_retained_examples():
  problem = problems.blobs()
  with pytest.raises(ValueError, match="no retain examples"):
    make(problem, 0.9, 4)(
      jax.random.key(0), problem.init(), problem.request._replace(retain=None)
    )


def test_one_step_on_text():
  forget, retain, _ = text.request()
  result = text.descend(
    grad_difference.transform, alpha=0.8, loss=language.cross_entropy
  )
  text.assert_descends(
    result,
    text.gradient(
      lambda p: 0.8 * text.nll(p, retain) - 0.2 * text.nll(p, forget)
    ),
  )
