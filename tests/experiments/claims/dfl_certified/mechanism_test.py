"""Which params the claims release, and which are refused."""

import numpy as np
import pytest

from experiments.claims.dfl_certified import (
  federation,
  heads,
  mechanism,
  problem,
)
from junlearn.certify.release import NotReachedError
from junlearn.clients import topology


@pytest.fixture(params=[("logistic", 1), ("softmax", 3)], ids=str)
def case(x64, request):
  head, tau = request.param
  rng = np.random.default_rng(0)
  n = federation.CLIENTS * 8
  digits = heads.features(
    {
      "input": rng.normal(size=(n, 4)),
      "label": rng.integers(0, 10, n).astype(np.int32),
      "id": np.arange(n),
    }
  )
  mixing = topology.metropolis_hastings(topology.ring(federation.CLIENTS))
  trained = federation.Federation(
    heads.HEADS[head], mixing, l2=0.05, local_steps=tau
  )
  clients = problem.clients_of(digits, "sorted", 0)
  forget = problem.records_of(clients, 3, 2, rng)
  return problem.case(trained, trained, clients, forget)


def test_corrected_params_are_released_with_the_noise_of_the_terms(case):
  corrected = mechanism.correct(case.federation, case.trained, case.request)
  assert problem.distance(corrected, case.retrained) < mechanism.MAX_DISTANCE
  released = mechanism.release(case.federation, corrected, case.request, seed=0)
  terms = released.info["release"]
  actual = problem.distance(corrected, case.retrained)
  assert actual <= terms.measured.result <= mechanism.MAX_DISTANCE
  moved = np.asarray(released.params - corrected)
  # Four standard errors of a standard deviation.
  error = 4 / np.sqrt(2 * moved.size)
  assert np.std(moved) == pytest.approx(terms.sigma, rel=error)


def test_uncorrected_params_are_refused(case):
  assert problem.distance(case.trained, case.retrained) > mechanism.MAX_DISTANCE
  with pytest.raises(NotReachedError):
    mechanism.release(case.federation, case.trained, case.request, seed=0)


def test_labels_are_those_of_the_head(case):
  classes = case.federation.head.classes
  present = case.clients["weight"] > 0
  assert set(case.clients["label"][present]) <= set(range(classes))
  assert case.clients["label"].max() == classes - 1


def test_distance_bounds_what_a_residual_leaves(case):
  shift = np.random.default_rng(1).normal(size=case.retrained.shape) / 100
  found = case.federation
  residual = found.residual(case.retrained + shift, case.request.retain)
  assert np.linalg.norm(shift) <= found.distance(residual)
  # Training ended not quite at the fixed point.
  assert found.bound.retrain_error == found.distance(federation.TOLERANCE)
