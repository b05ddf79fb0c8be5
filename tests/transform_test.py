"""Laws of chains, rounds and sequences of requests."""

import binascii

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from junlearn.transform import (
  Request,
  Result,
  chain,
  repeat,
  replay,
  stage_key,
)

KEY = jax.random.key(3)
REQUEST = Request(forget=jnp.arange(2.0), retain=jnp.arange(4.0))
stage_names = st.lists(
  st.text("abcdefgh_", min_size=1, max_size=6), min_size=1, unique=True
)


def record(key, params, request):
  """Changes nothing; its info is its key."""
  return Result(params, request, jax.random.key_data(key))


def noise(key, params, request):
  """Not commutative, reads both key and request."""
  draw = jax.random.normal(key, params.shape)
  params = 2 * params + draw + jnp.sum(request.forget)
  return Result(params, request, {"draw": draw})


def overwrite(key, params, request):
  """Hands another request on."""
  del key
  return Result(params, request._replace(forget=request.forget * 10), None)


def test_stage_key_folds_the_crc_of_the_name():
  expected = jax.random.fold_in(KEY, binascii.crc32(b"erase"))
  assert jnp.all(stage_key(KEY, "erase") == expected)
  assert not jnp.all(stage_key(KEY, "erase") == stage_key(KEY, "repair"))


@given(names=stage_names, more=stage_names, where=st.integers(0, 20))
def test_adding_stages_leaves_the_keys_of_the_others(names, more, where):
  more = [name for name in more if name not in names]
  longer = names[:where] + more + names[where:]
  short = chain(**dict.fromkeys(names, record))(KEY, 0.0, REQUEST)
  long = chain(**dict.fromkeys(longer, record))(KEY, 0.0, REQUEST)
  assert list(short.info) == names
  assert list(long.info) == longer
  for name in names:
    np.testing.assert_array_equal(short.info[name], long.info[name])


def test_chain_passes_params_and_request_on():
  transform = chain(first=noise, change=overwrite, last=noise)
  result = transform(KEY, jnp.zeros(3), REQUEST)

  params = jax.random.normal(stage_key(KEY, "first"), (3,)) + 1.0
  params = 2 * params + jax.random.normal(stage_key(KEY, "last"), (3,)) + 10.0
  np.testing.assert_allclose(result.params, params, rtol=1e-6)
  np.testing.assert_array_equal(result.request.forget, [0.0, 10.0])
  np.testing.assert_array_equal(result.request.retain, REQUEST.retain)
  assert result.info["change"] is None


def test_chain_of_chains_equals_running_the_parts_one_after_the_other():
  inner = chain(a=noise, b=noise)
  whole = chain(inner=inner, c=noise)(KEY, jnp.ones(2), REQUEST)
  part = inner(stage_key(KEY, "inner"), jnp.ones(2), REQUEST)
  end = noise(stage_key(KEY, "c"), part.params, part.request)
  np.testing.assert_array_equal(whole.params, end.params)
  np.testing.assert_array_equal(
    whole.info["inner"]["b"]["draw"], part.info["b"]["draw"]
  )


def test_repeat_by_hand():
  result = repeat(chain(n=noise, o=overwrite), 3)(KEY, jnp.ones(2), REQUEST)
  params, draws = jnp.ones(2), []
  for i in range(3):
    key = stage_key(jax.random.fold_in(KEY, i), "n")
    params, _, info = noise(key, params, REQUEST)  # not the overwritten one
    draws.append(info["draw"])
  np.testing.assert_array_equal(result.params, params)
  np.testing.assert_array_equal(result.info["n"]["draw"], jnp.stack(draws))
  assert result.request is REQUEST


def test_replay_by_hand_over_successive_requests():
  requests = [Request(jnp.full(2, k), None) for k in (1.0, 5.0, 7.0)]
  result = replay(noise)(KEY, jnp.ones(2), requests)
  params = jnp.ones(2)
  for k, request in enumerate(requests):
    params = noise(jax.random.fold_in(KEY, k), params, request).params
  np.testing.assert_array_equal(result.params, params)
  assert result.info["draw"].shape == (3, 2)
  assert result.request is requests


def test_replay_of_a_prefix_is_a_prefix_of_the_replay():
  requests = [Request(jnp.full(2, k), None) for k in (1.0, 5.0, 7.0)]
  short = replay(noise)(KEY, jnp.ones(2), requests[:2])
  end = noise(jax.random.fold_in(KEY, 2), short.params, requests[2])
  long = replay(noise)(KEY, jnp.ones(2), requests)
  np.testing.assert_array_equal(long.params, end.params)


def test_a_chain_can_be_jitted_and_mapped():
  transform = chain(rounds=repeat(noise, 2), change=overwrite)
  keys = jax.random.split(KEY, 3)
  mapped = jax.jit(jax.vmap(transform, in_axes=(0, None, None)))
  many = mapped(keys, jnp.ones(2), REQUEST)
  for i, key in enumerate(keys):
    one = transform(key, jnp.ones(2), REQUEST)
    jax.tree.map(
      lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5),
      many,
      one,
    )


def test_wrong_configuration_is_named():
  with pytest.raises(ValueError, match="at least one"):
    chain()
  with pytest.raises(ValueError, match="n is 0"):
    repeat(noise, 0)
  with pytest.raises(ValueError, match="empty"):
    replay(noise)(KEY, jnp.ones(2), [])
