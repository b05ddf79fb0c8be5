"""Laws that every unlearning method obeys.

A new method is one more row of `OF_CLASSES`, `OF_TEXT` or `CORRECTIONS` in
`rows`; a module without a row fails.
"""

import functools

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
  CORRECTIONS,
  DESCENTS,
  DRAWS,
  METHODS,
  OF_CLASSES,
  OF_CLIENTS,
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
  assert set(methods.cards()) == set(METHODS) | OF_CLIENTS


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
def test_vmap_over_keys_params_and_forget_sets_equals_a_python_loop(name):
  """One program for all: weights over one array tell the forget sets."""
  problem = problem_of(name)
  rng = np.random.default_rng(2)
  n = tree.size(problem.examples)

  def forget(key, params, weights):
    request = select.by_weight(problem.examples, weights)
    return shared(name)[0](key, params, request)._replace(request=None)

  keys = jax.random.split(KEY, 3)
  params = tree.stack([problem.init(seed) for seed in range(3)])
  forget_sets = np.stack([rng.permutation(n) < 8 for _ in range(3)])
  jitted, vmapped = jax.jit(forget), jax.jit(jax.vmap(forget))
  mapped = vmapped(keys, params, forget_sets)
  assert tree.all_finite(mapped)
  for member, weights in enumerate(forget_sets):
    single = jitted(keys[member], tree.take(params, member), weights)
    assert_close(tree.take(mapped, member), single)
  same = jnp.stack([KEY] * 3), tree.stack([problem.init()] * 3)
  alike = vmapped(*same, forget_sets).params
  assert len({tree.digest(tree.take(alike, i)) for i in range(3)}) == 3


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
