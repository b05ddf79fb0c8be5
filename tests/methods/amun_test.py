"""AMUN: its four training sets, failed searches, successive requests."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import tree
from junlearn.adversarial import Adversarial, nearest_adversarial
from junlearn.data import select
from junlearn.methods import amun
from junlearn.transform import replay
from tests import problems


def pretended(failed=()):
  """A search whose answer is known: inputs plus 1, labels plus 1."""

  def search(params, examples):
    del params
    n = len(examples["label"])
    is_failed = jnp.isin(jnp.arange(n), jnp.asarray(failed, jnp.int32))
    step = (~is_failed).astype(jnp.int32)
    return Adversarial(
      input=examples["input"] + step.astype(jnp.float32)[:, None],
      label=(examples["label"] + step) % 3,
      distance=jnp.ones(n),
      epsilon=jnp.full(n, 0.04),
      failed=is_failed,
      steps=jnp.asarray(1),
    )

  return search


def paired(request, failed=(), **options):
  stage = amun.pair(pretended(failed), **options)
  return stage(jax.random.key(0), None, request)


SETS = {
  (True, True): ("retain", "forget", "adversarial"),
  (True, False): ("retain", "adversarial"),
  (False, True): ("forget", "adversarial"),
  (False, False): ("adversarial",),
}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize(("use_retain", "use_forget"), SETS)
def test_training_set(use_retain, use_forget, absent):
  """The four sets, where retained examples are used, unused or absent."""
  request = problems.blobs().request
  if absent and use_retain:
    given, expected = request._replace(retain=None), SETS[False, use_forget]
  else:
    given, expected = request, SETS[use_retain, use_forget]
  result = paired(
    given, failed=(2, 5), use_retain=use_retain, use_forget=use_forget
  )
  forget = jax.tree.map(np.asarray, request.forget)
  failed = np.isin(np.arange(10), (2, 5))
  parts = {
    "retain": {**request.retain, "weight": np.ones(30)},
    "forget": {**forget, "weight": np.ones(10)},
    "adversarial": {
      "input": forget["input"] + np.float32(~failed)[:, None],
      "label": (forget["label"] + ~failed) % 3,
      "id": forget["id"],
      "weight": 1.0 - failed,
    },
  }
  extra = result.request.extra
  assert set(extra) == {"input", "label", "id", "weight"}
  for name, rows in extra.items():
    np.testing.assert_array_equal(
      rows, np.concatenate([parts[part][name] for part in expected])
    )
    if name != "weight":
      assert rows.dtype == forget[name].dtype
  assert result.request.forget is request.forget
  assert result.request.retain is given.retain
  assert result.info["failed"] == 2
  np.testing.assert_array_equal(
    result.info["label"], parts["adversarial"]["label"]
  )


def test_absent_examples_have_no_adversarial_ones():
  problem = problems.blobs()
  forget = np.arange(tree.size(problem.examples)) < 10
  request = select.by_weight(problem.examples, forget)
  result = paired(request, failed=(2,))
  weight = np.asarray(result.request.extra["weight"]).reshape(3, -1)
  np.testing.assert_array_equal(weight[0], ~forget)
  np.testing.assert_array_equal(weight[1], forget)
  np.testing.assert_array_equal(weight[2], forget & (np.arange(40) != 2))


def test_counts_failures_of_present_examples_only():
  problem = problems.blobs()
  forget = np.arange(tree.size(problem.examples)) < 10
  request = select.by_weight(problem.examples, forget)
  assert paired(request, failed=(2, 20, 30)).info["failed"] == 1


def make(problem, **options):
  options = {
    "search": nearest_adversarial(
      problem.model, epsilon=0.1, num_steps=10, max_doublings=6
    ),
    "num_steps": 4,
    "batch_size": 8,
    **options,
  }
  return amun.transform(problem.model, optax.sgd(0.05), **options)


def test_searches_with_the_params_given():
  problem = problems.blobs()
  result = jax.jit(make(problem))(
    jax.random.key(0), problem.init(), problem.request
  )
  info = result.info["attack"]
  adversarial = tree.take(result.request.extra, slice(-10, None))
  logits, _ = problem.model.apply(problem.init(), adversarial["input"])
  np.testing.assert_array_equal(adversarial["label"], jnp.argmax(logits, -1))
  np.testing.assert_array_equal(info["label"], adversarial["label"])
  present = adversarial["weight"] > 0
  true = problem.request.forget["label"]
  np.testing.assert_array_equal(adversarial["label"] != true, present)
  assert info["failed"] == np.sum(~np.asarray(present))


def test_without_retained_examples_equals_not_using_them():
  problem = problems.blobs()
  key, params = jax.random.key(0), problem.init()
  unused = jax.jit(make(problem, use_retain=False))(
    key, params, problem.request
  )
  lacking = jax.jit(make(problem))(
    key, params, problem.request._replace(retain=None)
  )
  assert tree.digest(unused.params) == tree.digest(lacking.params)


def test_searches_to_the_end_by_default():
  problem = problems.blobs()
  transform = make(problem, search=None, num_steps=1)
  result = jax.jit(transform)(
    jax.random.key(0), problem.init(), problem.request
  )
  assert result.info["attack"]["failed"] == 0


def test_answers_successive_requests():
  problem = problems.blobs()
  requests = select.blocks(problem.examples, 4, 3, seed=0)
  key, params = jax.random.key(0), problem.init()
  transform = jax.jit(make(problem))
  result = replay(transform)(key, params, requests)
  assert result.info["attack"]["distance"].shape == (3, 4)
  assert result.info["descend"]["steps"]["loss"].shape == (3, 4)
  assert np.all(result.info["descend"]["finite"])
  for index, request in enumerate(requests):
    params = transform(jax.random.fold_in(key, index), params, request).params
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    result.params,
    params,
  )
