"""Which labels the forgotten examples get, and what is trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn.methods import random_label
from tests import problems


def relabeled(request, num_classes, seed=0, **options):
  """The labels drawn, and the training set."""
  stage = random_label.relabel(num_classes, **options)
  extra = stage(jax.random.key(seed), None, request).request.extra
  return np.asarray(extra["label"])[-len(request.forget["label"]) :], extra


def many(n=3000, classes=4):
  """A request of many forget examples, without retained ones."""
  label = jnp.arange(n, dtype=jnp.int32) % classes
  forget = {"input": jnp.zeros((n, 1)), "label": label, "id": jnp.arange(n)}
  return problems.blobs().request._replace(forget=forget, retain=None)


def test_never_draws_the_true_label_by_default():
  request = many()
  drawn, _ = relabeled(request, 4)
  true = np.asarray(request.forget["label"])
  assert np.all(drawn != true)
  # The three others are equally likely: 250 of each in 750, +- 5 sigma.
  counts = [
    np.sum((true == t) & (drawn == c))
    for t in range(4)
    for c in range(4)
    if c != t
  ]
  assert np.all(np.abs(np.asarray(counts) - 250) < 5 * np.sqrt(750 * 2 / 9))


def test_may_draw_the_true_label():
  request = many()
  drawn, _ = relabeled(request, 4, exclude_true=False)
  kept = np.sum(drawn == np.asarray(request.forget["label"]))
  assert abs(kept - 750) < 5 * np.sqrt(3000 * 3 / 16)


def test_trains_on_retained_and_relabeled_examples():
  request = problems.blobs().request
  drawn, extra = relabeled(request, 3)
  for name in ("input", "id"):
    np.testing.assert_array_equal(
      extra[name], np.concatenate([request.retain[name], request.forget[name]])
    )
  kept = len(request.retain["label"])
  np.testing.assert_array_equal(extra["label"][:kept], request.retain["label"])
  assert np.all(drawn != request.forget["label"])
  assert extra["label"].dtype == request.forget["label"].dtype
  assert set(extra) == set(request.forget)


def test_leaves_the_parts_of_the_request_alone():
  request = problems.blobs().request
  after = random_label.relabel(3)(jax.random.key(0), None, request).request
  assert after.forget is request.forget
  assert after.retain is request.retain


def test_keys_draw_different_labels():
  request = many(100)
  first, second = (relabeled(request, 4, seed=seed)[0] for seed in (0, 1))
  assert np.any(first != second)


def test_works_without_retained_examples():
  problem = problems.blobs()
  result = random_label.transform(
    problem.model, optax.sgd(0.1), num_classes=3, num_steps=2, batch_size=4
  )(jax.random.key(0), problem.init(), problem.request._replace(retain=None))
  assert len(result.request.extra["label"]) == 10
  assert result.info["descend"]["finite"]


def test_refuses_a_single_class():
  with pytest.raises(ValueError, match="num_classes is 1"):
    relabeled(problems.blobs().request, 1)
