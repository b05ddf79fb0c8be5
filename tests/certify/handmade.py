"""Releases of a stage and a bound made by hand, on seven numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from junlearn.certify import certified
from junlearn.certify.release import Bound
from junlearn.transform import Request, Result

KEY = jax.random.key(11)
EPSILON, DELTA, LIMIT = 1.0, 1e-3, 0.2
REQUEST = Request(None, None)
SIZE = 7


def params():
  return {"b": jnp.ones(3), "w": jnp.full((2, 2), 2.0)}


def move(key, params, request):
  """A stage that leaves every number 0.01 higher."""
  del key
  moved = jax.tree.map(lambda leaf: leaf + 0.01, params)
  return Result(moved, request, {"moved": True})


def stay(key, params, request):
  del key
  return Result(params, request, {"moved": False})


def no_entropy(size):
  raise AssertionError(f"{size} bytes of noise were drawn")


def bound_of(distance, **changes):
  """Of params at this distance, a number or `(params, request) -> number`."""
  read = distance if callable(distance) else lambda params, request: distance
  made = Bound(
    theorem="residual",
    constants={"l2": 1.0},
    measure=lambda params, request: {"gradient_norm": read(params, request)},
    norm="joint",
    retrain_error=0.0,
    checks={"nothing": lambda params, request: "Nothing is assumed."},
    stated={"features": "Given."},
  )
  return made._replace(**changes)


def make(bound=None, stage=move, **options):
  settings = {"epsilon": EPSILON, "delta": DELTA, "max_distance": LIMIT}
  bound = bound_of(0.1) if bound is None else bound
  return certified(stage, bound, **{**settings, **options})


def release(*arguments, **options):
  return make(*arguments, **options)(KEY, params(), REQUEST)


def flat(tree):
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
