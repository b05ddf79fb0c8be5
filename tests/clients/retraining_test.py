"""Distances of clients' models to retraining: bounds and certified releases."""

import functools

import jax
import numpy as np
import pytest

from junlearn.certify.release import NotReachedError
from junlearn.transform import Request
from tests import softmax
from tests.clients.ring import (
  CASES,
  CLASSES,
  CONSENSUS,
  FEATURES,
  L2,
  LOCAL_STEPS,
  STEP,
  Dense,
  as_params,
  bound_of,
  mean_risk,
  no_entropy,
  present,
  release,
  rows,
  setting,
  stay,
)

KEY = jax.random.key(0)
KAPPA = (1 - STEP * L2) ** LOCAL_STEPS


@functools.cache  # one compiled program for all tests
def stacked(name):
  case = setting(**CASES[name])
  return case, jax.jit(bound_of(case).distance)


# The bounds.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_stacked_is_at_least_the_distance_to_retraining(name):
  case, distance_of = stacked(name)
  dense = Dense(case.training, case.request.retain)
  retrained = dense.fixed_point()
  rng = np.random.default_rng(1)
  for size in (1e-6, 1e-3, 0.1, 1, 10):
    X = retrained + size * rng.normal(size=retrained.shape)
    distance = float(distance_of(as_params(X), case.request))
    residual = np.linalg.norm(X - dense.round(X)[0])
    several = dense.local_steps > 1
    expected = residual / (1 - KAPPA if several else STEP * L2)
    np.testing.assert_allclose(distance, expected, rtol=1e-8, atol=1e-8)
    assert np.linalg.norm(X - retrained) <= distance < np.inf


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CONSENSUS)
def test_consensus_is_at_least_the_distance_to_the_minimum(name):
  case = setting(**CONSENSUS[name])
  distance_of = jax.jit(bound_of(case, form="consensus").distance)
  gradient, hessian = mean_risk(case, present(name))
  minimum = softmax.minimum(gradient, hessian, np.zeros(FEATURES * CLASSES))
  rng = np.random.default_rng(2)
  for size in (1e-6, 1e-2, 1, 100):
    offset = size * rng.normal(size=minimum.shape)
    params = as_params(np.tile(minimum + offset, (4, 1)))
    distance = float(distance_of(params, case.request))
    norm = np.linalg.norm(gradient(minimum + offset))
    np.testing.assert_allclose(distance, norm / L2, rtol=1e-8, atol=1e-8)
    assert np.linalg.norm(offset) <= distance < np.inf


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_rounding_is_allowed_for(name):
  """The allowance is there, and small; the distance includes it."""
  case, _ = stacked(name)
  measured = bound_of(case).measured(case.params, case.request)
  (norm,) = (n for n in measured.arguments if n.endswith("_norm"))
  error = measured.arguments[norm.replace("_norm", "_error")]
  assert 1e-16 < error < 1e-9
  factor = measured.result / (measured.arguments[norm] + error)
  several = case.training.local_steps > 1
  np.testing.assert_allclose(
    factor, 1 / (1 - KAPPA) if several else 1 / L2, rtol=1e-12
  )


@pytest.mark.usefixtures("x64")
def test_rounding_of_a_consensus_is_that_of_its_gradient():
  """However many local steps, and however small, training took."""
  errors = []
  for local_steps in (1, LOCAL_STEPS):
    case = setting(local_steps=local_steps)
    found = bound_of(case, form="consensus").measured(case.params, case.request)
    errors.append(found.arguments["gradient_error"])
  assert errors[0] == errors[1] > 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("local_steps", [1, LOCAL_STEPS])
def test_retrain_error_is_how_far_retraining_may_end(local_steps):
  """Rounds are run until one moves the clients by less than the tolerance."""
  case = setting(local_steps=local_steps)
  dense, tolerance = Dense(case.training, case.request.retain), 1e-4
  retrain_error = bound_of(case, tolerance=tolerance).retrain_error
  slack = 1 - KAPPA if local_steps > 1 else STEP * L2
  assert retrain_error == pytest.approx(tolerance / slack, rel=1e-12)
  assert bound_of(case).retrain_error == 0
  X = rows(case.params)
  while np.linalg.norm((after := dense.round(X)[0]) - X) > tolerance:
    X = after
  apart = np.linalg.norm(X - dense.fixed_point())
  assert 0.1 * retrain_error < apart <= retrain_error


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("options", "form"),
  [
    ({"removed": 1}, "stacked"),
    ({"local_steps": LOCAL_STEPS}, "stacked"),
    ({"removed": 1, "weighting": "sample"}, "consensus"),
  ],
)
def test_clients_on_one_device_or_many(options, form):
  case = setting(**options)
  one, many = (
    bound_of(case, form=form, backend=backend).measured(
      case.params, case.request
    )
    for backend in ("vmap", "pmap")
  )
  np.testing.assert_allclose(one.result, many.result, rtol=1e-12)


# Releases.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("form", "name"),
  [
    ("stacked", "client, by sample"),
    ("stacked", "local steps, by sample"),
    ("consensus", "client, by sample"),
  ],
)
def test_certified_release(form, name):
  case = setting(**CASES[name])
  result = release(case, form)(KEY, case.params, case.request)
  terms = result.info["release"]
  assert 1e-11 < terms.measured.result <= terms.max_distance == 1e-3
  assert result.info["stage"].converged
  released = rows(result.params)
  if form == "consensus":
    # One draw for all rows, which is all that is drawn.
    assert terms.noise_dimensions == FEATURES * CLASSES
    np.testing.assert_array_equal(released, released[[0] * 4])
    retrained = softmax.minimum(
      *mean_risk(case, present(name)), np.zeros(FEATURES * CLASSES)
    )
  else:
    assert terms.noise_dimensions == released.size
    retrained = Dense(case.training, case.request.retain).fixed_point()
  added = released - retrained
  assert 0 < np.abs(added).max() < 6 * terms.sigma + 1e-3
  if form == "stacked":  # rows that share noise would show it here
    noise = np.corrcoef(added / terms.sigma)[np.triu_indices(4, 1)]
    assert np.abs(noise).max() < 0.95
  assert ("smoothness" in terms.checked) == ("local" in name)
  assert {"mixing", "linear", "loss", "weights"} <= terms.checked.keys()


def test_the_norm_goes_with_the_form():
  case = setting()
  assert bound_of(case, form="consensus").norm == "row"
  assert bound_of(case, form="stacked").norm == "joint"
  for name in ("norm", "noise"):
    with pytest.raises(TypeError, match=name):
      bound_of(case, **{name: "joint"})


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("row", "value"), [(0, 1e-200), (3, 1e-9)])
def test_a_consensus_of_rows_that_differ_is_not_released(row, value):
  """However little: noise shared by the rows leaves their differences."""
  case = setting(**CONSENSUS["client, by sample"])
  X = np.tile(rows(case.params)[0], (4, 1))
  X[:, 5] = 0
  X[row, 5] = value
  transform = release(
    case, "consensus", stage=stay, max_distance=1e3, entropy=fail_late()
  )
  with pytest.raises(ValueError, match="rows of the leaf 'kernel' differ"):
    transform(KEY, as_params(X), case.request)


def fail_late():
  """Noise for the bias, which has equal rows, and no other."""
  sizes = [16 * CLASSES]

  def entropy(size):
    assert size == sizes.pop()
    return bytes(size)

  return entropy


@pytest.mark.usefixtures("x64")
def test_nothing_is_released_beyond_the_distance():
  case = setting()
  for fallback in (None, stay):
    short = release(case, stage=stay, fallback=fallback, entropy=no_entropy)
    with pytest.raises(NotReachedError, match="nothing was released"):
      short(KEY, case.params, case.request)


@pytest.mark.usefixtures("x64")
def test_string_ids():
  case = setting(local_steps=LOCAL_STEPS)

  def named(examples):
    ids = np.char.add("record ", np.asarray(examples["id"]).astype(str))
    return {**examples, "id": ids}

  request = Request(*map(named, case.request[:2]))
  terms = release(case)(KEY, case.params, request).info["release"]
  assert terms.measured.result <= 1e-3


def test_single_precision_is_refused():
  case = setting()
  with pytest.raises(ValueError, match="float32"):
    release(case, entropy=no_entropy)(KEY, case.params, case.request)
