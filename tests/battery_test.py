"""Laws that every unlearning method obeys.

A new method is one more row of `OF_CLASSES`, `OF_TEXT` or `CORRECTIONS` in
`rows`; a module without a row fails.
"""

import functools
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import loop as loops
from junlearn import methods, tree
from junlearn.data import select
from junlearn.transform import Request, Result
from tests import problems
from tests.rows import (
  BUDGET,
  CORRECTIONS,
  DESCENTS,
  DRAWS,
  METHODS,
  OF_CLASSES,
  OF_CLIENTS,
  OF_TEXT,
  problem_of,
)

every_method = pytest.mark.parametrize("name", METHODS)
every_descent = pytest.mark.parametrize("name", DESCENTS)
every_correction = pytest.mark.parametrize("name", CORRECTIONS)
KEY = jax.random.key(7)


def make(name, *, problem=None, num_steps=5, loop=None):
  problem = problem or problem_of(name)
  if name in CORRECTIONS:
    return CORRECTIONS[name](problem)
  return DESCENTS[name](
    problem,
    optax.sgd(0.1, momentum=0.9),
    num_steps=num_steps,
    batch_size=8,
    loop=loop,
  )


@functools.cache
def shared(name):
  """A method's transform and its jitted form, compiled once for all tests."""
  transform = make(name)
  return transform, jax.jit(transform)


@functools.cache
def outcome(name):
  problem = problem_of(name)
  return shared(name)[1](KEY, problem.init(), problem.request)


def assert_close(actual, desired, rtol=1e-5, atol=1e-6):
  assert jax.tree.structure(actual) == jax.tree.structure(desired)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    actual,
    desired,
  )


def assert_same(actual, desired):
  assert_close(actual, desired, rtol=0, atol=0)


def abstract(params):
  return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)


def test_every_module_has_a_row():
  modules = {module.name for module in pkgutil.iter_modules(methods.__path__)}
  assert modules == set(METHODS) | OF_CLIENTS


@every_method
def test_returns_a_result_that_keeps_the_params_form(name):
  problem = problem_of(name)
  result = outcome(name)
  assert isinstance(result, Result)
  assert isinstance(result.request, Request)
  assert abstract(result.params) == abstract(problem.init())
  for part in ("forget", "retain"):
    assert_same(getattr(result.request, part), getattr(problem.request, part))


@every_method
def test_info_is_finite(name):
  info = outcome(name).info
  assert jax.tree.leaves(info)
  assert tree.all_finite(info)


@every_descent
def test_info_has_the_steps(name):
  info = outcome(name).info
  steps = info.get("descend", info)
  assert steps["finite"]
  assert steps["steps"]["loss"].shape == (5,)


@every_method
def test_changes_the_params(name):
  before = problem_of(name).init()
  assert tree.digest(outcome(name).params) != tree.digest(before)


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_key_decides_the_result(name):
  problem = problem_of(name)
  again, other = (
    shared(name)[1](key, problem.init(), problem.request)
    for key in (KEY, jax.random.key(8))
  )
  assert_same(again, outcome(name))
  assert tree.digest(other.params) != tree.digest(again.params)


@every_method
def test_eager_and_host_loop_equal_jit(name):
  problem = problem_of(name)
  arguments = (KEY, problem.init(), problem.request)
  host = [loops.host(every=2)] if name in DESCENTS else []
  for loop in (loops.scan(), *host):
    transform = make(name, loop=loop)
    assert_close(transform(*arguments), outcome(name))
    assert compilations(functools.partial(transform, *arguments)) == []


@every_method
def test_second_call_does_not_compile(name):
  problem = problem_of(name)
  outcome(name)
  other = jax.random.key(9), problem.init(seed=3), problem.request
  assert compilations(lambda: shared(name)[1](*other)) == []


@every_method
def test_vmap_over_keys_equals_a_python_loop(name):
  problem = problem_of(name)
  jitted = shared(name)[1]
  keys = jax.random.split(KEY, 3)
  params = tree.stack([problem.init(seed) for seed in range(3)])
  mapped = jax.jit(jax.vmap(shared(name)[0], in_axes=(0, 0, None)))(
    keys, params, problem.request
  )
  for member in range(3):
    single = jitted(keys[member], tree.take(params, member), problem.request)
    assert_close(tree.take(mapped, member), single)


@every_method
def test_weights_over_one_array_map_over_forget_sets(name):
  problem = problem_of(name)
  rng = np.random.default_rng(2)
  n = tree.size(problem.examples)
  forget_sets = np.stack([rng.permutation(n) < 8 for _ in range(2)])

  def forget(weights):
    request = select.by_weight(problem.examples, weights)
    return shared(name)[0](KEY, problem.init(), request)._replace(request=None)

  mapped = jax.jit(jax.vmap(forget))(forget_sets)
  jitted = jax.jit(forget)
  assert tree.all_finite(mapped)
  for member, weights in enumerate(forget_sets):
    assert_close(tree.take(mapped, member), jitted(weights))
  first, second = (tree.digest(tree.take(mapped, i).params) for i in (0, 1))
  assert first != second


@every_descent
@pytest.mark.parametrize("loop", [loops.scan(), loops.host()])
def test_zero_budget_is_the_identity(name, loop):
  problem = problem_of(name)
  result = make(name, num_steps=0, loop=loop)(
    KEY, problem.init(), problem.request
  )
  if name == "retrain":  # a fresh start all the same
    assert abstract(result.params) == abstract(problem.init())
  else:
    assert_same(result.params, problem.init())


@every_correction
def test_no_strength_is_the_identity(name):
  problem = problem_of(name)
  transform = CORRECTIONS[name](problem, strength=0.0)
  result = transform(KEY, problem.init(), problem.request)
  assert_same(result.params, problem.init())


@every_correction
def test_corrections_leave_batch_statistics_alone(name):
  problem = problems.normalized()
  before = problem.init()
  result = jax.jit(CORRECTIONS[name](problem))(KEY, before, problem.request)
  assert abstract(result.params) == abstract(before)
  assert tree.all_finite(result)
  assert_same(result.params["batch_stats"], before["batch_stats"])
  assert tree.digest(result.params) != tree.digest(before)


def assert_refreshes_statistics(problem, name):
  before = problem.init()
  result = jax.jit(make(name, problem=problem, num_steps=2))(
    KEY, before, problem.request
  )
  assert abstract(result.params) == abstract(before)
  assert tree.all_finite(result)
  old, new = before["batch_stats"], result.params["batch_stats"]
  assert tree.digest(old) != tree.digest(new)
  for path, leaf in jax.tree_util.tree_leaves_with_path(new):
    assert tree.path_name(path).endswith("mean") or np.all(leaf > 0)


@pytest.mark.parametrize("name", sorted(OF_CLASSES))
def test_keeps_batch_statistics_in_form(name):
  assert_refreshes_statistics(problems.normalized(), name)


def test_residual_nets_keep_batch_statistics_in_form():
  assert_refreshes_statistics(problems.digits(), "finetune")


# Eight seeds of a net that knows its examples by heart.
SEEDS = 8
TRAINING = {True: (300, 0.1), False: (300, 0.5)}  # of text, or not


def unlearn(name, problem, budget, params, *requests):
  """Forget confidence `[seeds]` after a method, and the params `[seeds]`."""
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
    params = transform(key, params, request).params
    return problem.confidence(params), params

  keys = jax.random.split(jax.random.key(1), SEEDS)
  mapped = jax.jit(jax.vmap(single, in_axes=(0, 0, None)))
  return [mapped(keys, params, request) for request in requests]


def after(name):
  """Forget confidence `[seeds]` of the original after a method."""
  problem = problem_of(name, hidden=64)
  original = references(name in OF_TEXT)[2]
  budget = BUDGET.get(name)
  ((confidence, _),) = unlearn(name, problem, budget, original, problem.request)
  return confidence


@functools.cache
def references(of_text):
  """Forget confidence of the original and of the retrained, and the original.

  Both see the same number of batches; weights tell their training sets.
  """
  problem = problems.sentences() if of_text else problems.blobs(hidden=64)
  kept = ~np.isin(problem.examples["id"], problem.request.forget["id"])
  everything, without = (
    Request(None, {**problem.examples, "weight": jnp.asarray(weight)})
    for weight in (np.ones_like(kept, np.float32), kept.astype(np.float32))
  )
  fresh = tree.stack([problem.init()] * SEEDS)
  (before, original), (target, _) = unlearn(
    "retrain", problem, TRAINING[of_text], fresh, everything, without
  )
  return np.asarray(before), np.asarray(target), original


@pytest.mark.parametrize("of_text", [True, False])
def test_the_problem_tells_original_from_retrained(of_text):
  before, target, _ = references(of_text)
  assert np.all(before > 0.85)
  assert np.all(target < 0.65)


# Ferrari forgets a feature of the examples and not the examples.
RECORDS = set(METHODS) - {"retrain", "finetune", "ferrari"}


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_moves_the_forget_confidence_towards_retraining(name):
  before, target, _ = references(name in OF_TEXT)
  gap = np.abs(before - target)
  assert np.mean(np.abs(after(name) - target)) < 0.8 * np.mean(gap)


def test_finetuning_moves_it_no_further_away_than_chance():
  """Nothing pushes the examples out: fine-tuning only must not reverse."""
  before, target, _ = references(False)
  change = np.abs(after("finetune") - target) - np.abs(before - target)
  standard_error = np.std(change, ddof=1) / np.sqrt(SEEDS)
  assert np.mean(change) < 2 * standard_error


def compilations(function):
  """Names of what XLA compiled while the function ran."""
  compiled = []

  def listen(event, duration, **details):
    del duration
    if event == "/jax/core/compile/backend_compile_duration":
      compiled.append(details.get("fun_name", event))

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    jax.block_until_ready(function())
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  return compiled


def test_compilations_are_counted():
  x = jnp.arange(3.0)
  assert compilations(lambda: jax.jit(lambda x: x * 3 + 1)(x)) != []
