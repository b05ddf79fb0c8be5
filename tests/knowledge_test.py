"""Two laws of what is known after unlearning, and the vandals they catch.

A method comes closer to retraining on what is forgotten, and what is retained
stays known.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import tree
from junlearn.transform import Request
from tests import problems
from tests.rows import BUDGET, CORRECTIONS, DESCENTS, METHODS, OF_TEXT

# Eight seeds of a net that has memorized its examples.
SEEDS = 8
TRAINING = {True: (300, 0.1), False: (300, 0.5)}  # of text, or not


class Known(NamedTuple):
  """Confidence in the truth `[seeds]` of each part, and the params."""

  forget: jax.Array
  retain: jax.Array
  params: Any


def known(problem, params):
  parts = (problem.confidence(params, part) for part in ("forget", "retain"))
  return Known(*parts, params)


def unlearn(name, problem, budget, params, *requests):
  """What is known after a method, for each request."""
  if name in CORRECTIONS:
    transform = CORRECTIONS[name](problem)
  else:
    num_steps, learning_rate = budget
    transform = DESCENTS[name](
      problem,
      optax.sgd(learning_rate, momentum=0.9),
      num_steps=num_steps,
      batch_size=16,
    )

  def single(key, params, request):
    return known(problem, transform(key, params, request).params)

  keys = jax.random.split(jax.random.key(1), SEEDS)
  mapped = jax.jit(jax.vmap(single, in_axes=(0, 0, None)))
  return [mapped(keys, params, request) for request in requests]


def learned(of_text):
  return problems.sentences() if of_text else problems.blobs(hidden=64)


@functools.cache
def after(name):
  """What is known after a method has seen the original."""
  of_text = name in OF_TEXT
  problem, original = learned(of_text), references(of_text)[0].params
  budget = BUDGET.get(name)
  return unlearn(name, problem, budget, original, problem.request)[0]


@functools.cache
def references(of_text):
  """What the original knows, and the retrained.

  Both see the same number of batches; weights tell their training sets.
  """
  problem = learned(of_text)
  kept = ~np.isin(problem.examples["id"], problem.request.forget["id"])
  everything, without = (
    Request(None, {**problem.examples, "weight": jnp.asarray(weight)})
    for weight in (np.ones_like(kept, np.float32), kept.astype(np.float32))
  )
  fresh = tree.stack([problem.init()] * SEEDS)
  return unlearn(
    "retrain", problem, TRAINING[of_text], fresh, everything, without
  )


@pytest.mark.parametrize("of_text", [True, False])
def test_the_problem_tells_original_from_retrained(of_text):
  original, retrained = references(of_text)
  assert np.all(original.forget > 0.85)
  assert np.all(retrained.forget < 0.65)
  assert np.all(original.retain > 0.95)
  assert np.all(retrained.retain > 0.95)


def left(known, of_text):
  """Of the way from the original to retraining, the share left to go."""
  original, retrained = references(of_text)
  gap = np.mean(np.abs(original.forget - retrained.forget))
  return np.mean(np.abs(known.forget - retrained.forget)) / gap


def lost(known, of_text):
  """Of what retraining knows of the retained, the share that is gone."""
  _, retrained = references(of_text)
  return 1 - np.mean(known.retain) / np.mean(retrained.retain)


MOST_LEFT, MOST_LOST = 0.8, 0.3

# Ferrari forgets a feature of the examples and not the examples.
RECORDS = set(METHODS) - {"retrain", "finetune", "ferrari"}


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_moves_the_forget_confidence_towards_retraining(name):
  assert left(after(name), name in OF_TEXT) < MOST_LEFT


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"retrain"}))
def test_the_retained_stays_known(name):
  assert lost(after(name), name in OF_TEXT) < MOST_LOST


def noisy(scale):
  """The params plus noise of a multiple of each leaf's standard deviation."""

  def vandal(key, problem, params):
    del problem
    leaves, form = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return form.unflatten(
      leaf + scale * jnp.std(leaf) * jax.random.normal(key, leaf.shape)
      for key, leaf in zip(keys, leaves, strict=True)
    )

  return vandal


def fresh(key, problem, params):
  del params
  return problem.model.init(key, problem.examples["input"][:1])


# What is no unlearning, and which of the two laws says so.
VANDALS = {
  "unchanged": (noisy(0.0), left, MOST_LEFT),
  "little noise": (noisy(0.1), left, MOST_LEFT),
  "much noise": (noisy(1.0), lost, MOST_LOST),
  "fresh": (fresh, lost, MOST_LOST),
}


@pytest.mark.parametrize("of_text", [True, False])
@pytest.mark.parametrize("name", VANDALS)
def test_a_vandal_is_caught(name, of_text):
  vandal, law, most = VANDALS[name]
  problem, original = learned(of_text), references(of_text)[0].params

  def single(key, params):
    return known(problem, vandal(key, problem, params))

  keys = jax.random.split(jax.random.key(3), SEEDS)
  assert law(jax.jit(jax.vmap(single))(keys, original), of_text) > most


def test_finetuning_moves_it_no_further_away_than_chance():
  """Nothing pushes the examples out: fine-tuning only must not reverse."""
  original, retrained = references(False)
  distances = (
    np.abs(model.forget - retrained.forget)
    for model in (after("finetune"), original)
  )
  change = np.subtract(*distances)
  standard_error = np.std(change, ddof=1) / np.sqrt(SEEDS)
  assert np.mean(change) < 2 * standard_error
