"""A descent that freezes, against the same descent cut short."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import loop, tree
from junlearn.descent import descend, gradient_descent, population, run
from junlearn.early_stopping import StopRule
from junlearn.transform import Request

KEY = jax.random.key(3)
START = jnp.array([4.0, -8.0])
REQUEST = Request({"input": jnp.arange(6.0)}, None)


def shrink(params, batch, *, reference, key):
  """Half the squared norm: a step of size 0.5 halves the params."""
  del reference
  noise = 0 * jax.random.uniform(key)
  drawn = jnp.mean(batch.forget["input"])
  loss = 0.5 * jnp.sum(jnp.square(params)) + noise
  return loss, (params, {"drawn": drawn})


def plain(num_steps, stop=None):
  return gradient_descent(
    shrink, optax.sgd(0.5), num_steps=num_steps, batch_size=2, stop=stop
  )


def largest(key, params, request):
  del key, request
  return jnp.max(jnp.abs(params))


def watched(num_steps=10, every=1, share=0.25):
  rule = StopRule(lambda now, first: now <= share * first, largest, every)
  return plain(num_steps, rule)


@pytest.mark.parametrize("make_loop", [loop.scan, lambda: loop.host(every=4)])
@pytest.mark.parametrize(("every", "taken"), [(1, 2), (3, 3), (4, 4)])
def test_stops_at_the_first_look_that_has_reached_the_goal(
  make_loop, every, taken
):
  result = run(watched(every=every), make_loop())(KEY, START, REQUEST)
  np.testing.assert_array_equal(result.params, START * 0.5**taken)
  steps = result.info["steps"]
  assert steps["stopped"].tolist() == [k >= taken for k in range(1, 11)]
  assert steps["taken"].tolist() == [min(k, taken) for k in range(1, 11)]
  np.testing.assert_array_equal(steps["first"], np.full(10, 8.0))
  assert steps["now"][-1] == 8 * 0.5**taken
  # Steps that were taken are those of the plain descent; the rest repeat.
  expected = run(plain(10))(KEY, START, REQUEST).info["steps"]
  for name in ("loss", "drawn"):
    np.testing.assert_allclose(steps[name][:taken], expected[name][:taken])
    assert np.all(steps[name][taken:] == steps[name][taken - 1])


def test_looks_after_the_last_step_too():
  steps = run(watched(num_steps=5, every=3, share=0.0))(
    KEY, START, REQUEST
  ).info["steps"]
  assert steps["now"].tolist() == [8.0, 8.0, 1.0, 1.0, 0.25]
  assert not steps["stopped"].any()


def test_a_goal_reached_at_the_start_leaves_the_params():
  result = run(watched(share=1.0))(KEY, START, REQUEST)
  np.testing.assert_array_equal(result.params, START)
  assert result.info["steps"]["stopped"].all()
  assert not result.info["steps"]["taken"].any()


def test_no_steps():
  result = run(watched(num_steps=0))(KEY, START, REQUEST)
  np.testing.assert_array_equal(result.params, START)
  assert result.info["steps"]["now"].shape == (0,)


def test_members_of_a_population_stop_one_by_one():
  """The second member starts where the goal needs more halvings."""

  def below_one(now, first):
    del first
    return now < 1

  descent = plain(8, StopRule(below_one, largest, 1))
  starts = jnp.stack([START, 4 * START])
  many = run(population(descent))(jax.random.split(KEY), starts, REQUEST)
  np.testing.assert_array_equal(many.params[0], START / 16)
  np.testing.assert_array_equal(many.params[1], starts[1] / 64)
  mapped = jax.jit(jax.vmap(run(descent), (None, 0, None)))(
    KEY, starts, REQUEST
  )
  np.testing.assert_array_equal(mapped.params, many.params)


def test_measurements_share_one_key():
  def draw(key, params, request):
    del params, request
    return jax.random.uniform(key)

  def never(now, first):
    del now, first
    return False

  descent = plain(4, StopRule(never, draw, 1))
  steps = run(descent)(KEY, START, REQUEST).info["steps"]
  assert len(np.unique(np.append(steps["now"], steps["first"]))) == 1
  other = run(descent)(jax.random.key(4), START, REQUEST).info["steps"]
  assert other["first"][0] != steps["first"][0]


def test_frozen_steps_are_not_computed():
  counted = []

  def shrink_and_count(params, batch, *, reference, key):
    jax.debug.callback(lambda: counted.append(1))
    return shrink(params, batch, reference=reference, key=key)

  transform = descend(
    shrink_and_count,
    optax.sgd(0.5),
    num_steps=50,
    batch_size=1,
    stop=StopRule(lambda now, first: now <= first / 8, largest, 1),
  )
  jax.block_until_ready(transform(KEY, START, REQUEST).params)
  jax.effects_barrier()
  assert len(counted) == 3


def test_the_host_loop_ends_where_all_members_have_stopped():
  """It looks once more at the end, so that what is shown is complete."""
  looks, starts = [], jnp.stack([START, 4 * START])

  def watch(done, total, carry, infos):
    looks.append((done, total, infos["now"].shape))

  def below_one(now, first):
    del first
    return now < 1

  descent = population(plain(40, StopRule(below_one, largest, 1)))
  keys = jax.random.split(KEY)
  host = run(descent, loop.host(every=4, watch=watch))(keys, starts, REQUEST)
  # 4 and 6 halvings: the second look sees both stopped.
  assert looks == [(d, 40, (40, 2)) for d in (4, 8, 40)]
  scan = run(descent)(keys, starts, REQUEST)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    (host.params, host.info),
    (scan.params, scan.info),
  )


def test_keeps_the_state_that_was_frozen():
  """Momentum would go on if only the params were frozen."""
  stopping = descend(
    shrink,
    optax.sgd(0.1, momentum=0.9),
    num_steps=20,
    batch_size=1,
    stop=StopRule(lambda now, first: now <= first / 2, largest, 1),
  )
  result = stopping(KEY, START, REQUEST)
  taken = int(np.sum(~result.info["steps"]["stopped"])) + 1
  short = gradient_descent(
    shrink, optax.sgd(0.1, momentum=0.9), num_steps=taken, batch_size=1
  )
  np.testing.assert_allclose(
    result.params, run(short)(KEY, START, REQUEST).params, rtol=1e-6
  )
  assert tree.size(result.info["steps"]) == 20


def test_every_is_checked():
  with pytest.raises(ValueError, match="every is 0"):
    watched(every=0)
