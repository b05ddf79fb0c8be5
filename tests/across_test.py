"""One function over members: all backends and a Python loop agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.across import across, fastest

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
