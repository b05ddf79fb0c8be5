"""Ways to a false certificate, each of which once led to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import view
from junlearn.certify import certified, noise
from junlearn.certify.release import NotReachedError
from junlearn.clients import retraining
from junlearn.methods import newton
from junlearn.model import from_function
from junlearn.transform import Request, Result
from tests.certify.handmade import KEY, REQUEST, bound_of, make, stay
from tests.clients.ring import setting

pytestmark = pytest.mark.usefixtures("x64")

LINEAR = from_function(lambda w, x: x @ w)


def request(n=8):
  rng = np.random.default_rng(n)

  def records(first, count):
    return {
      "input": rng.normal(size=(count, 2)),
      "label": rng.integers(0, 2, count),
      "id": np.arange(first, first + count),
    }

  return Request(records(1000, 3), records(0, n))


def release(model, asked, *, stage=stay, l2=0.1, max_distance=1e-6, **options):
  bound = newton.bound(model, l2=l2, features="Given.", **options)
  start = jnp.zeros((2, 2))
  return certified(
    stage, bound, epsilon=1.0, delta=1e-5, max_distance=max_distance
  )(KEY, start, asked)


@pytest.mark.parametrize(
  "apply",
  [
    lambda w, x: x @ w + 1e12,
    lambda w, x: (x @ w + 1e12) - 1e12,
    lambda w, x: 1e12 * (x @ w) - (1e12 - 1) * (x @ w),
  ],
)
def test_digits_lost_on_the_way_are_allowed_for(apply):
  """The optimum as the program computes it may be anywhere."""
  model, asked = from_function(apply), request()
  stage = newton.transform(LINEAR, l2=0.1, max_distance=1e-9)
  release(LINEAR, asked, stage=stage)
  with pytest.raises(NotReachedError, match="only known to be at most"):
    release(model, asked, stage=stage)


def test_opposite_scores_have_an_allowance():
  tied = from_function(lambda w, x: jnp.stack([x @ w[0], -(x @ w[0])], 1))
  bound = newton.bound(tied, l2=0.1, features="Given.")
  found = bound.measured(jnp.zeros((2, 2)), request())
  assert found.arguments["gradient_error"] > 1e-16


def test_a_model_that_is_linear_on_few_records_alone():
  model = from_function(lambda w, x: x @ w if len(x) <= 64 else (x @ w) ** 2)
  with pytest.raises(ValueError, match="not linear in its parameters"):
    release(model, request(98))


def test_a_stage_that_takes_the_forgotten_records_back():
  """The bound is measured on the request as it was given."""

  def evil(key, params, asked):
    everything = {
      name: np.concatenate([leaf, asked.forget[name]])
      for name, leaf in asked.retain.items()
    }
    asked.retain.update(everything)
    return train(key, params, asked)

  train = newton.transform(LINEAR, l2=0.1, max_distance=1e-9)
  assert train(KEY, jnp.zeros((2, 2)), request()).info.converged
  with pytest.raises(NotReachedError):
    release(LINEAR, request(), stage=evil)


HEADED = {"body": np.zeros(3), "head": np.ones(2)}


def hide(params):
  params["body"][:] = 7.0
  return params


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (hide, "changed a leaf that is not free"),
    (lambda p: {**p, "body": -p["body"]}, "changed a leaf that is not free"),
    (lambda p: {**p, "head": np.ones((2, 9))}, "structure or shapes"),
    (lambda p: {**p, "more": np.ones(2)}, "structure or shapes"),
    (lambda p: [p], "structure or shapes"),
  ],
)
def test_a_stage_that_writes_where_there_is_no_noise(change, message):
  def stage(key, params, asked):
    del key
    return Result(change(params), asked, {})

  transform = make(bound_of(0.1, view=view.only("head")), stage)
  params = jax.tree.map(np.copy, HEADED)
  with pytest.raises(ValueError, match=message):
    transform(KEY, params, REQUEST)


def test_a_stage_without_a_result():
  with pytest.raises(ValueError, match="the stage returned a dict; it must be"):
    make(stage=lambda *_: {})(KEY, {"w": jnp.ones(2)}, REQUEST)


def test_zeros_have_no_sign():
  """It would be that of the param, where the noise rounds to 0 as well."""
  middle = np.uint64(2**63).tobytes()

  def entropy(size):
    highest = np.full(size // 16, 2**64 - 1, np.uint64).tobytes()
    return highest + middle * (size // 16)

  for small in (-1e-30, 1e-30):
    params = {"w": jnp.full(5, small)}
    found = noise.add(
      params, sigma=1.0, step=noise.grid(1.0), norm="joint", entropy=entropy
    )["w"]
    np.testing.assert_array_equal(found, 0.0)
    assert not np.signbit(found).any()


def test_rows_of_a_matrix_that_cost_all_convexity():
  case = setting(4)
  mixing = case.training.mixing + 0.24e-12
  tiny = case.training._replace(mixing=mixing, l2=1e-9)
  with pytest.raises(ValueError, match=r"mixing is off by .* at most"):
    retraining.bound(LINEAR, tiny, features="Given.")


def test_a_matrix_that_is_changed_after_it_was_checked():
  case = setting(4)
  mixing = np.array(case.training.mixing)
  training = case.training._replace(mixing=mixing)
  model = from_function(lambda p, x: x @ p["kernel"] + p["bias"])
  bound = retraining.bound(model, training, features="Given.")
  mixing[:] = 5.0
  honest = retraining.bound(model, case.training, features="Given.")
  found, expected = (
    float(each.distance(case.params, case.request)) for each in (bound, honest)
  )
  assert found == expected


def test_numbers_that_vanish_when_squared():
  asked = request()
  asked.retain["input"] *= 1e-170
  with pytest.raises(NotReachedError):
    release(LINEAR, asked, l2=1e-165, max_distance=1e-9)


def test_narrow_numbers_swallow_nothing():
  made = make(bound_of(0.1, retrain_error=4e-4), max_distance=np.float16(0.25))
  found = made(KEY, {"w": jnp.ones(3)}, REQUEST).info["release"]
  wide = make(bound_of(0.1, retrain_error=4e-4), max_distance=0.25)
  assert (
    found.sigma == wide(KEY, {"w": jnp.ones(3)}, REQUEST).info["release"].sigma
  )
  assert type(found.max_distance) is float


@pytest.mark.parametrize(
  ("ids", "message"),
  [
    (np.arange(8.0), "ids of dtype float64"),
    (np.arange(8) > 3, "ids of dtype bool"),
    (np.arange(8).astype("S"), "ids of dtype"),
    (np.zeros((8, 2), int), r"shape \(8, 2\)"),
    (np.array([1, "a", 2, 3, 4, 5, 6, 7], object), "ids of dtype object"),
    (np.zeros(8, int), "the id 0 more than once"),
  ],
)
def test_ids_that_tell_nothing_apart(ids, message):
  asked = request()
  asked.retain["id"] = ids
  with pytest.raises(ValueError, match=message):
    release(LINEAR, asked)


@pytest.mark.parametrize("kind", [object, str])
def test_weights_that_are_no_numbers(kind):
  asked = request()
  asked.retain["weight"] = np.ones(8).astype(kind)
  with pytest.raises(ValueError, match="it must be numbers"):
    release(LINEAR, asked)
