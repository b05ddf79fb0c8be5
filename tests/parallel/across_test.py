"""One function over members: all backends and a Python loop agree."""

import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.parallel.across import (
  AXES,
  across,
  data_parallel,
  fastest,
  gather,
)

KEYS = jax.random.split(jax.random.key(0), 8)
MATRICES = jnp.arange(32.0).reshape(8, 2, 2) / 32
SHARED = {"w": jnp.array([1.0, -1.0]), "b": jnp.float32(0.5)}


def member(key, matrix, shared):
  noise = jax.random.normal(key, (2,))
  return {"y": jnp.tanh(matrix @ shared["w"] + shared["b"]) + noise, "k": key}


def assert_close(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


def plain(result):
  """Typed keys as numbers, for comparison."""
  return {"y": result["y"], "k": jax.random.key_data(result["k"])}


@pytest.mark.parametrize("count", [4, 8])
def test_backends_and_a_loop_agree(count):
  assert jax.local_device_count() == 4
  arguments = KEYS[:count], MATRICES[:count], SHARED
  mapped = {
    backend: plain(
      across(member, in_axes=(0, 0, None), backend=backend)(*arguments)
    )
    for backend in ("vmap", "map", "pmap")
  }
  singly = [plain(member(KEYS[i], MATRICES[i], SHARED)) for i in range(count)]
  expected = jax.tree.map(lambda *rows: jnp.stack(rows), *singly)
  for result in mapped.values():
    assert_close(result, expected)


@pytest.mark.parametrize("backend", ["vmap", "map", "pmap"])
def test_axes_may_differ_within_an_argument(backend):
  axes = ({"shared": None, "own": 0, "none": None}, None)
  value = {"shared": jnp.arange(3.0), "own": jnp.arange(4.0), "none": None}
  result = across(
    lambda tree, factor: tree["shared"] * tree["own"] + factor,
    in_axes=axes,
    backend=backend,
  )(value, jnp.float32(2))
  expected = np.arange(4.0)[:, None] * np.arange(3.0) + 2
  np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize("backend", ["vmap", "map", "pmap"])
def test_one_axis_stands_for_all_arguments(backend):
  add = across(lambda a, b: a["x"] + b, backend=backend)
  result = add({"x": jnp.arange(4.0)}, jnp.ones(4))
  np.testing.assert_array_equal(result, [1, 2, 3, 4])


def test_pmap_uses_every_device_and_works_under_jit():
  function = across(jnp.square, backend="pmap")
  values = jnp.arange(8.0)
  np.testing.assert_array_equal(jax.jit(function)(values), values**2)
  assert len(function(values).sharding.device_set) == 4


def test_pmap_traces_once():
  traces = []

  def counted(x):
    traces.append(1)
    return x + 1

  function = across(counted, backend="pmap")
  function(jnp.arange(4.0))
  first = len(traces)
  function(jnp.arange(4.0) + 1)
  assert len(traces) == first


@pytest.mark.parametrize("count", [3, 6])
def test_members_that_do_not_divide_are_refused(count):
  function = across(jnp.square, backend="pmap")
  with pytest.raises(ValueError, match=rf"{count} members .* over 4 devices"):
    function(jnp.ones(count))


def test_unknown_backends_are_refused():
  with pytest.raises(ValueError, match="backend is 'shard'"):
    across(jnp.square, backend="shard")


def test_fastest_never_divides_a_cpu_and_divides_accelerators(monkeypatch):
  assert fastest(4) == "map"
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert [fastest(members) for members in (4, 16, 6)] == [
    "pmap",
    "pmap",
    "vmap",
  ]


def communicating(x, scale):
  """Every kind of communication that a body of one member may need."""

  def energy(x):
    return jax.lax.psum(scale * jnp.sum(x**2), AXES)

  number = jax.lax.axis_index(AXES)
  rounds, small = jax.lax.while_loop(
    lambda carry: energy(carry[1]) > 1,
    lambda carry: (carry[0] + 1, carry[1] / 2),
    (jnp.int32(0), x),
  )
  return {
    "number": number,
    "sum": jax.lax.psum(x, AXES),
    "all": gather({"x": x})["x"],
    "gradient": jax.grad(energy)(x),
    "tangent": jax.jvp(energy, (x,), (jnp.ones_like(x),))[1],
    "rounds": rounds,
    "small": small,
  }


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit])
@pytest.mark.parametrize("backend", ["vmap", "pmap"])
@pytest.mark.parametrize("count", [4, 8])
def test_members_communicate(count, backend, jit):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(count, 3)).astype(np.float32)
  mapped = across(
    communicating, in_axes=(0, None), backend=backend, collective=True
  )
  result = jax.device_get(jit(mapped)(x, jnp.float32(2)))
  np.testing.assert_array_equal(result["number"], np.arange(count))
  np.testing.assert_array_equal(
    result["all"], np.broadcast_to(x, (count, *x.shape))
  )
  rounds = 0
  while 2 * np.sum((x / 2**rounds) ** 2) > 1:
    rounds += 1
  np.testing.assert_array_equal(result["rounds"], rounds)
  np.testing.assert_allclose(result["small"], x / 2**rounds, rtol=1e-6)
  for name, expected in {
    "sum": np.broadcast_to(x.sum(0), x.shape),
    # The reverse mode sums what all members' energies say of one member's x.
    "gradient": 4 * x * count,
    "tangent": np.full(count, 4 * x.sum()),
  }.items():
    np.testing.assert_allclose(result[name], expected, rtol=1e-4, err_msg=name)


def test_without_collectives_the_axes_have_no_names():
  with pytest.raises(NameError, match="devices"):
    across(lambda x: jax.lax.psum(x, AXES))(jnp.ones(4))


def test_members_that_run_one_by_one_cannot_communicate():
  with pytest.raises(ValueError, match="backend is 'map'"):
    across(jnp.square, backend="map", collective=True)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit])
def test_devices_share_one_piece_of_work(jit):
  rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)

  @data_parallel
  def mean_gradient(device, w, rows):
    own = rows.reshape(4, 2, 3)[device]
    gradient = jax.grad(lambda w: jnp.mean(jnp.square(own @ w)))(w)
    return jax.lax.pmean({"g": gradient, "d": device.astype(w.dtype)}, AXES[0])

  w = jnp.array([1.0, -2.0, 0.5])
  result = jit(mean_gradient)(w, rows)
  expected = 2 * rows.T @ (rows @ np.asarray(w)) / 8
  np.testing.assert_allclose(result["g"], expected, rtol=1e-5)
  assert result["d"] == 1.5
  assert len(result["g"].sharding.device_set) == 4
  # What is returned can be given again, in a scan as well.
  walked = jax.jit(
    lambda w: jax.lax.scan(
      lambda w, _: (w - 0.1 * mean_gradient(w, rows)["g"], None), w, length=3
    )[0]
  )(w)
  by_hand = np.asarray(w)
  for _ in range(3):
    by_hand = by_hand - 0.1 * 2 * rows.T @ (rows @ by_hand) / 8
  np.testing.assert_allclose(walked, by_hand, rtol=1e-4)


_PROCESS = """
import sys
import jax
import jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 2)
rank = int(sys.argv[2])
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, rank)
from junlearn.parallel.across import AXES, across, gather
def body(x):
  number = jax.lax.axis_index(AXES)
  return jax.lax.psum(x, AXES), gather(x), number
own = jnp.arange(4.0) + 4 * rank
total, rows, number = across(body, backend="pmap", collective=True)(own)
assert total.tolist() == [28.0] * 4, total
assert rows.tolist() == [list(range(8))] * 4, rows
assert number.tolist() == [4 * rank + i for i in range(4)], number
try:
  jax.jit(across(body, backend="pmap", collective=True))(own)
except ValueError as error:
  assert "cannot communicate within jit" in str(error)
else:
  raise AssertionError("sums over one process alone passed for sums over all")
"""


def test_members_of_two_processes_communicate():
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    port = str(listener.getsockname()[1])
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", _PROCESS, port, rank],
      cwd=pathlib.Path(__file__).parents[2],
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in "01"
  ]
  try:
    for process in processes:
      error = process.communicate(timeout=300)[1]
      assert process.returncode == 0, error
  finally:
    for process in processes:
      process.kill()
