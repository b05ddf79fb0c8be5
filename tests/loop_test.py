"""Scan and host take the same steps; host can be watched and resumed."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import loop

NUM_STEPS = 11
XS = {
  "key": jax.random.split(jax.random.key(0), NUM_STEPS),
  "rate": jnp.linspace(0.1, 0.5, NUM_STEPS),
}
DATA = jnp.arange(12.0).reshape(3, 4) / 10


def make_step(bad=None):
  """A noisy step of a nonlinear recursion; info is NaN at step `bad`."""

  def step(carry, x, data):
    params, count = carry
    noise = jax.random.normal(x["key"], params.shape)
    params = params - x["rate"] * jnp.sin(data.T @ (data @ params)) + noise
    value = jnp.sum(params)
    if bad is not None:
      value = jnp.where(count + 1 == bad, jnp.nan, value)
    return (params, count + 1), {"loss": value, "norm": params**2}

  return step


def start():
  return jnp.ones(4), jnp.int32(0)


def by_hand(step, num_steps=NUM_STEPS):
  carry, infos = start(), []
  for i in range(num_steps):
    carry, info = step(carry, jax.tree.map(lambda x, i=i: x[i], XS), DATA)
    infos.append(info)
  return carry, jax.tree.map(lambda *rows: jnp.stack(rows), *infos)


class Memory:
  """A checkpoint in memory; dies in place of the save at `dies`."""

  def __init__(self, dies=None):
    self.kept, self.dies, self.saves = None, dies, []

  def restore(self, carry, infos):
    if self.kept is None:
      return 0, carry, infos
    step, carry, infos = jax.tree.map(np.array, self.kept)
    return int(step), jax.tree.map(jnp.asarray, carry), infos

  def save(self, step, carry, infos):
    if step == self.dies:
      raise KeyboardInterrupt
    self.saves.append(step)
    self.kept = jax.tree.map(np.array, (step, carry, infos))


def assert_trees(a, b, **tolerance):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("every", [1, 3, 11, 50])
def test_scan_and_host_agree_with_a_loop_by_hand(every):
  step = make_step()
  expected = by_hand(step)
  scanned = loop.scan()(step, start(), XS, DATA)
  hosted = loop.host(every=every)(step, start(), XS, DATA)
  assert_trees(scanned, expected, rtol=1e-4, atol=1e-5)
  assert_trees(hosted, scanned, rtol=1e-5, atol=1e-6)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(hosted))
  for a, b in zip(
    jax.tree.leaves(hosted), jax.tree.leaves(scanned), strict=True
  ):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)


def test_host_runs_a_step_that_is_a_program_of_its_own():
  """Of two devices, whose sums jit must not see, as over processes."""

  @functools.partial(jax.pmap, axis_name="devices", in_axes=(0, None, None))
  def communicate(params, rate, data):
    inner = jax.lax.psum(jnp.sin(data @ params).sum(), "devices")
    return params - rate * inner, inner

  def step(params, x, data):
    assert not isinstance(params, jax.core.Tracer)
    params, inner = communicate(params, x["rate"], data)
    return params, {"inner": inner[0]}

  params = jnp.arange(8.0).reshape(2, 4)
  memory = Memory(dies=8)
  options = {"every": 4, "compiled": False}
  whole = loop.host(**options)(step, params, XS, DATA)
  with pytest.raises(KeyboardInterrupt):
    loop.host(**options, checkpoint=memory)(step, params, XS, DATA)
  memory.dies = None
  again = loop.host(**options, checkpoint=memory)(step, params, XS, DATA)
  carry = params
  for i in range(NUM_STEPS):
    inner = np.sin(np.asarray(DATA @ carry.T, np.float64)).sum()
    np.testing.assert_allclose(whole[1]["inner"][i], inner, rtol=2e-4)
    carry, _ = communicate(carry, XS["rate"][i], DATA)
  np.testing.assert_array_equal(whole[0], carry)
  np.testing.assert_array_equal(again[0], carry)
  np.testing.assert_array_equal(again[1]["inner"], whole[1]["inner"])
  none = loop.host(**options)(step, params, {"rate": XS["rate"][:0]}, DATA)
  assert none[0] is params


def test_no_steps_leave_the_carry():
  none = jax.tree.map(lambda x: x[:0], XS)
  for each in (loop.scan(), loop.host()):
    carry, infos = each(make_step(), start(), none, DATA)
    assert_trees(carry, start(), rtol=0)
    assert infos["norm"].shape == (0, 4)


@pytest.mark.parametrize(
  ("every", "looks"),
  [(1, list(range(1, 12))), (4, [4, 8, 11]), (11, [11]), (50, [11])],
)
def test_watch_is_called_when_said_with_rows_filled_so_far(every, looks):
  step, seen = make_step(), []
  _, expected = by_hand(step)

  def watch(done, total, carry, infos):
    assert total == NUM_STEPS
    assert int(carry[1]) == done
    assert isinstance(infos["loss"], np.ndarray)
    np.testing.assert_allclose(
      infos["loss"][:done], expected["loss"][:done], rtol=1e-4, atol=1e-5
    )
    assert not infos["loss"][done:].any()
    seen.append(done)

  loop.host(every=every, watch=watch)(step, start(), XS, DATA)
  assert seen == looks


@pytest.mark.parametrize("dies", [3, 6, 9, 11])
def test_a_continued_run_equals_an_uninterrupted_one_bit_for_bit(dies):
  step = make_step()
  whole = loop.host(every=3)(step, start(), XS, DATA)
  memory = Memory(dies=dies)
  with pytest.raises(KeyboardInterrupt):
    loop.host(every=3, checkpoint=memory)(step, start(), XS, DATA)
  first, memory.dies, looks = list(memory.saves), None, []
  watch = lambda done, *_: looks.append(done)  # noqa: E731
  continued = loop.host(every=3, checkpoint=memory, watch=watch)(
    step, start(), XS, DATA
  )
  assert_trees(continued, whole, rtol=0)
  assert first == [k for k in (3, 6, 9) if k < dies]
  assert looks == [k for k in (3, 6, 9, 11) if k >= dies]
  assert memory.saves == [3, 6, 9, 11]

  looks.clear()  # a finished run takes no more steps
  again = loop.host(every=3, checkpoint=memory, watch=watch)(
    step, start(), XS, DATA
  )
  assert_trees(again, whole, rtol=0)
  assert looks == []


def test_looking_more_often_does_not_change_a_continued_run():
  step, memory = make_step(), Memory(dies=8)
  whole = loop.host()(step, start(), XS, DATA)
  with pytest.raises(KeyboardInterrupt):
    loop.host(every=4, checkpoint=memory)(step, start(), XS, DATA)
  memory.dies = None
  continued = loop.host(every=3, checkpoint=memory)(step, start(), XS, DATA)
  assert_trees(continued, whole, rtol=0)


@pytest.mark.parametrize("bad", [1, 7, 11])
def test_a_non_finite_info_names_its_step_and_is_not_kept(bad):
  memory, looks = Memory(), []
  with pytest.raises(loop.NonFiniteError, match=rf"loss .* at step {bad};"):
    loop.host(
      every=3, checkpoint=memory, watch=lambda done, *_: looks.append(done)
    )(make_step(bad), start(), XS, DATA)
  assert memory.saves == looks == [k for k in (3, 6, 9) if k < bad]


def test_a_lost_gradient_is_named_as_a_cause():
  def step(carry, x, data):
    del x, data
    return carry, {"gradient_norm": jnp.nan, "loss": jnp.float32(0)}

  with pytest.raises(
    loop.NonFiniteError,
    match=r"^gradient_norm is not finite at step 1; no gradient reaches .*"
    r"\(is the model adapted\?\), or a smaller learning rate may help\.$",
  ):
    loop.host()(step, start(), XS, DATA)


def test_scan_carries_non_finite_infos_on():
  _, infos = loop.scan()(make_step(7), start(), XS, DATA)
  np.testing.assert_array_equal(np.flatnonzero(np.isnan(infos["loss"])), [6])


@pytest.mark.parametrize("mapping", [jax.jit, jax.grad, jax.vmap])
def test_host_refuses_to_be_traced(mapping):
  def run(carry):
    step = make_step()
    return jnp.sum(loop.host()(step, (carry, jnp.int32(0)), XS, DATA)[0][0])

  argument = jnp.ones((2, 4)) if mapping is jax.vmap else jnp.ones(4)
  with pytest.raises(ValueError, match="under jit, vmap or pmap; use scan"):
    mapping(run)(argument)


@pytest.mark.filterwarnings("ignore:Some donated buffers")
def test_host_refuses_a_step_that_closes_over_a_traced_value():
  def run(scale):
    def step(carry, x, data):
      del data
      return carry - scale * x["rate"], {"loss": carry * scale}

    return loop.host()(step, jnp.float32(1), XS, DATA)[0]

  with pytest.raises(ValueError, match="use scan"):
    jax.vmap(run)(jnp.ones(2))


def compilations(caplog, run):
  caplog.clear()
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    run()
  texts = [record.getMessage() for record in caplog.records]
  return [text for text in texts if text.startswith("Compiling")]


@pytest.mark.parametrize("make_loop", [loop.scan, loop.host])
def test_loops_compile_once_however_often_they_run(make_loop, caplog):
  step = make_step()

  def run(factor):
    carry = jax.tree.map(lambda leaf: leaf.copy(), start())
    return lambda: make_loop()(
      step, carry, {**XS, "rate": XS["rate"] * factor}, DATA
    )

  run(jnp.float32(1))  # the multiplication itself
  assert compilations(caplog, run(jnp.float32(2)))
  assert compilations(caplog, run(jnp.float32(3))) == []


def test_the_callers_carry_is_not_donated():
  carry = start()
  loop.host()(make_step(), carry, XS, DATA)
  np.testing.assert_array_equal(carry[0], np.ones(4))
  assert not carry[0].is_deleted()


def test_every_is_checked():
  with pytest.raises(ValueError, match="every is 0"):
    loop.host(every=0)
