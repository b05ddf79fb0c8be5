"""Fine-tuning reads the retained examples and nothing else."""

import jax
import numpy as np
import optax
import pytest

from junlearn import loss, view
from junlearn.methods import finetune
from tests import problems


def make(problem, **options):
  options = {"num_steps": 3, "batch_size": 4, **options}
  return finetune.transform(problem.model, optax.sgd(0.1), **options)


def test_one_full_batch_step():
  problem = problems.blobs()
  params, retain = problem.init(), problem.request.retain
  transform = make(problem, num_steps=1, batch_size=len(retain["label"]))
  result = transform(jax.random.key(0), params, problem.request)
  per_example = loss.cross_entropy(problem.model)
  gradient = jax.grad(lambda p: per_example(p, retain)[0].mean())(params)
  jax.tree.map(
    lambda new, old, g: np.testing.assert_allclose(
      new, old - 0.1 * g, rtol=1e-5, atol=1e-6
    ),
    result.params,
    params,
    gradient,
  )


def test_does_not_read_the_forgotten_examples():
  problem = problems.blobs()
  transform = jax.jit(make(problem))
  key, params = jax.random.key(0), problem.init()
  jax.tree.map(
    np.testing.assert_array_equal,
    transform(key, params, problem.request._replace(forget=None)).params,
    transform(key, params, problem.request).params,
  )


def test_moves_only_the_leaves_of_the_view():
  problem = problems.blobs()
  params = problem.init()
  result = make(problem, view=view.layers("Dense_1"))(
    jax.random.key(0), params, problem.request
  )
  old, new = params["params"], result.params["params"]
  jax.tree.map(np.testing.assert_array_equal, new["Dense_0"], old["Dense_0"])
  assert not np.array_equal(new["Dense_1"]["kernel"], old["Dense_1"]["kernel"])


def test_needs_retained_examples():
  problem = problems.blobs()
  with pytest.raises(ValueError, match="no retain examples"):
    make(problem)(
      jax.random.key(0), problem.init(), problem.request._replace(retain=None)
    )
