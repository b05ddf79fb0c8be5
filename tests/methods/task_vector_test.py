"""Negated task vectors, in exact arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import language, view
from junlearn.loss import cross_entropy
from junlearn.methods import finetune, task_vector
from junlearn.transform import Request
from tests import problems, text


def tuned(**options):
  """Fine-tuning on what is to be forgotten."""
  forget = Request(None, text.request().forget)
  return text.descend(
    finetune.transform, forget, loss=language.cross_entropy, **options
  ).params


@pytest.mark.parametrize("scale", [5.0, 0.0, -1.0])
def test_goes_as_far_the_other_way(scale):
  result = text.descend(
    task_vector.transform, scale=scale, num_steps=2, rate=0.1
  )
  expected = jax.tree.map(
    lambda old, new: old - scale * (new - old),
    text.params(),
    tuned(num_steps=2, rate=0.1),
  )
  # Full batches in another order: equal up to rounding.
  text.assert_close(result.params, expected)
  assert bool(result.info["finite"])


def test_only_what_is_free_moves():
  result = text.descend(task_vector.transform, view=view.layers("head"))
  start = text.params()
  for name in ("embed", "hidden"):
    jax.tree.map(
      np.testing.assert_array_equal,
      result.params["params"][name],
      start["params"][name],
    )
  assert not np.array_equal(
    result.params["params"]["head"]["kernel"],
    start["params"]["head"]["kernel"],
  )


def test_an_overflow_on_the_way_back_is_reported():
  result = text.descend(task_vector.transform, scale=1e38, rate=1e3)
  assert np.isfinite(result.info["steps"]["loss"]).all()
  assert not result.info["finite"]


def test_keeps_batch_statistics():
  problem = problems.normalized()
  before = problem.init()
  after = task_vector.transform(
    problem.model, optax.sgd(0.1), loss=cross_entropy, num_steps=1, batch_size=8
  )(text.KEY, before, problem.request).params
  jax.tree.map(
    np.testing.assert_array_equal, after["batch_stats"], before["batch_stats"]
  )
  assert jnp.any(
    after["params"]["Dense_0"]["kernel"]
    != before["params"]["Dense_0"]["kernel"]
  )
