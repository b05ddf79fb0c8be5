"""The attack on releases, against the AUC of two known Gaussians."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.claims.dfl_certified import detection
from junlearn.certify import noise

_SAMPLES = 4000


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_auc_is_that_of_the_two_gaussians(x64, sigma):
  rng = np.random.default_rng(0)
  retrained = rng.normal(size=(3, 2))
  params = retrained + rng.normal(size=(3, 2))
  found = detection._auc(
    params,
    retrained,
    sigma=sigma,
    step=noise.grid(sigma),
    samples=_SAMPLES,
    entropy=rng.bytes,
  )
  apart = np.linalg.norm(params - retrained)
  expected = stats.norm.cdf(apart / (math.sqrt(2) * sigma))
  # Four standard errors at most: Var(U) <= AUC (1 - AUC) / samples.
  tolerance = 4 * math.sqrt(expected * (1 - expected) / _SAMPLES)
  assert found == pytest.approx(expected, abs=tolerance)
  assert tolerance < 0.03


def test_without_noise_every_release_is_told_apart(x64):
  found = detection._auc(
    np.array([1.0, 1.001]),
    np.array([1.0, 1.0]),
    sigma=0.0,
    step=2.0**-20,
    samples=10,
    entropy=np.random.default_rng(0).bytes,
  )
  assert found == 1
