"""What `certified` allows to be fixed beforehand, and what it refuses."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import view
from junlearn.certify.derived import derive
from junlearn.certify.release import NotReachedError, Release, describe
from junlearn.transform import Result
from tests.certify.handmade import (
  DELTA,
  EPSILON,
  KEY,
  LIMIT,
  REQUEST,
  bound_of,
  flat,
  make,
  no_entropy,
  params,
  release,
  stay,
)

# A public limit.


def a_priori(l2=0.5):
  return derive(
    "a_priori",
    num_removed=2,
    num_examples=100,
    l2=l2,
    optimum_gradient=1.0,
    hessian_lipschitz=0.5,
  )


def test_a_limit_by_an_a_priori_theorem(x64):
  limit = a_priori()
  terms = release(bound_of(limit.result / 2), max_distance=limit).info[
    "release"
  ]
  assert terms.limit == limit and terms.max_distance == limit.result
  assert isinstance(terms, Release)
  with pytest.raises(NotReachedError, match="above max_distance"):
    release(bound_of(limit.result * 1.01), max_distance=limit)


@pytest.mark.parametrize(
  ("limit", "message"),
  [
    (derive("residual", gradient_norm=0.1, l2=1.0), "result of 'residual'"),
    (
      derive("fixed_point_residual", residual_norm=0.1, contraction=0.5),
      "result of 'fixed_point_residual'",
    ),
    (
      derive("newton_step", gradient_norm=0.1, l2=1.0, hessian_lipschitz=1.0),
      "result of 'newton_step'",
    ),
    (
      a_priori()._replace(result=0.1),
      r"max_distance\.result is 0\.1; computed",
    ),
  ],
)
def test_limits_that_are_none(limit, message):
  with pytest.raises(ValueError, match=message):
    make(max_distance=limit)


# Views.

HEADED = {"body": np.linspace(0.1, 0.9, 5), "head": np.ones((2, 3))}


def move_only(name, key, params, request):
  del key
  moved = {**params, name: params[name] + 0.01}
  return Result(moved, request, {})


def test_noise_is_on_the_free_leaves_alone(x64):
  """And fixed ones are as they were, to the last bit."""
  bound = bound_of(0.1, view=view.only("head"))
  transform = make(bound, functools.partial(move_only, "head"))
  result = transform(KEY, jax.tree.map(jnp.asarray, HEADED), REQUEST)
  assert result.info["release"].noise_dimensions == 6
  assert (np.asarray(result.params["head"]) != HEADED["head"] + 0.01).all()
  found = np.asarray(result.params["body"])
  assert found.tobytes() == HEADED["body"].tobytes()


@pytest.mark.parametrize("change", [0.01, 1e-16])
def test_a_stage_that_touches_fixed_leaves(x64, change):
  def stage(key, params, request):
    del key
    body = params["body"].at[0].add(change)
    return Result({**params, "body": body}, request, {})

  bound = bound_of(0.1, view=view.only("head"))
  transform = make(bound, stage, entropy=no_entropy)
  with pytest.raises(ValueError, match="changed a leaf that is not free"):
    transform(KEY, jax.tree.map(jnp.asarray, HEADED), REQUEST)


# What is refused.


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      {"max_distance": 0.0},
      r"max_distance is 0\.0; it must be finite and above",
    ),
    ({"max_distance": -1}, "max_distance is -1"),
    ({"max_distance": math.nan}, "max_distance is nan"),
    ({"max_distance": math.inf}, "max_distance is inf"),
    ({"max_distance": 1e308}, r"distance is 1e\+308.* sigma within double"),
    (
      {"bound": bound_of(0.1, retrain_error=-1)},
      "retrain_error is -1",
    ),
    ({"bound": bound_of(0.1, retrain_error=math.nan)}, "retrain_error is nan"),
    ({"bound": bound_of(0.1, retrain_error=math.inf)}, "retrain_error is inf"),
    ({"epsilon": 0.0}, r"epsilon is 0\.0; it must be above 0 and at most 20"),
    ({"epsilon": -1}, "epsilon is -1"),
    ({"epsilon": 21}, "epsilon is 21"),
    ({"epsilon": math.inf}, "epsilon is inf"),
    ({"epsilon": math.nan}, "epsilon is nan"),
    ({"delta": 0}, "delta is 0; it must be in "),
    ({"delta": 1}, "delta is 1"),
    ({"delta": math.nan}, "delta is nan"),
    ({"bound": lambda params, request: 0.1}, "bound is a function; it must"),
    ({"bound": tuple(bound_of(0.1))}, "bound is a tuple; it must be a Bound"),
  ],
)
def test_bad_configuration(options, message):
  """Before anything is applied, and by `describe` alike."""
  with pytest.raises(ValueError, match=message):
    make(**options)
  settings = {"epsilon": EPSILON, "delta": DELTA, "max_distance": LIMIT}
  settings |= {"bound": bound_of(0.1), **options}
  with pytest.raises(ValueError, match=message):
    describe(params=params(), request=REQUEST, **settings)


def test_noise_that_is_too_small_for_doubles(x64):
  """Params near 1 and a goal of 1e-16: the low digits would show through."""
  least = 2.0**-30 * 2.01
  with pytest.raises(
    ValueError, match=re.escape(f"at least {least:.3g} ")
  ) as error:
    release(bound_of(0.0), max_distance=1e-16, entropy=no_entropy)
  assert "allow a larger max_distance" in str(error.value)


@pytest.mark.parametrize(
  "run", [jax.jit, lambda f: jax.vmap(f, (None, 0, None))]
)
def test_runs_on_the_host_alone(x64, run):
  many = jax.tree.map(lambda leaf: leaf[None], params())
  with pytest.raises(ValueError, match="runs under jit or vmap; it must run"):
    run(make(entropy=no_entropy))(KEY, many, REQUEST)


def test_a_stage_that_was_mapped_over_its_keys_is_refused(x64):
  def random(key, params, request):
    moved = jax.tree.map(lambda x: x + jax.random.normal(key), params)
    return Result(moved, request, {})

  transform = make(stage=random, entropy=no_entropy)
  with pytest.raises(ValueError, match="runs under jit or vmap"):
    jax.vmap(transform, (0, None, None))(
      jax.random.split(KEY), params(), REQUEST
    )


def test_single_precision_is_refused():
  with pytest.raises(ValueError, match="'b' of dtype float32"):
    release(entropy=no_entropy)
  wide = {"b": np.ones(3), "w": np.ones((2, 2))}
  with pytest.raises(ValueError, match="jax_enable_x64 is False"):
    make(stage=stay, entropy=no_entropy)(KEY, wide, REQUEST)


@pytest.mark.parametrize(
  ("before", "after"), [("float64", "float32"), ("float32", "float64")]
)
def test_a_stage_that_casts_is_refused(x64, before, after):
  def cast(params, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

  def stage(key, params, request):
    del key
    return Result(cast(params, after), request, {})

  with pytest.raises(ValueError, match="float32"):
    make(stage=stage, entropy=no_entropy)(KEY, cast(params(), before), REQUEST)


def test_state_beside_params_is_refused(x64):
  state = {"params": params(), "batch_stats": {"mean": jnp.zeros(2)}}
  with pytest.raises(ValueError, match="'batch_stats' beside 'params'"):
    make(entropy=no_entropy)(KEY, state, REQUEST)
  empty = {"params": params(), "state": {}}
  released = make()(KEY, empty, REQUEST).params
  assert released["state"] == {} and np.isfinite(flat(released)).all()
