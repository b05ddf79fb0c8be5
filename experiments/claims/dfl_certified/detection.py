"""Claim 4: the best test between a release and retraining's.

What a correction really leaves is far below what its certificate allows, so
that even half the noise would hide it on these data. The worst model is the
one that still passes and is as far away as the certificate says.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments.claims.dfl_certified.federation import CLIENTS
from experiments.claims.dfl_certified.mechanism import (
  MAX_DISTANCE,
  correct,
  release,
)
from experiments.claims.dfl_certified.problem import Case, Cases, distance
from experiments.claims.dfl_certified.statement import (
  Measured,
  claim,
  column,
  empty,
)
from experiments.run.tables import table
from junlearn.certify import noise
from junlearn.certify.release import NotReachedError, Release

_ROUNDING = 1e-6  # of certificates, and what the worst model stays within


def claims(cases: Cases, *, samples: int) -> Measured:
  """AUC of the likelihood ratio of so many releases, on the logistic head."""
  rows, limits, refused, sharpness = empty(), [], [], []
  for setting, group in cases.items():
    if setting[0] != "logistic":
      continue
    federation = group[0].federation
    for seed, each in enumerate(group):
      corrected = correct(federation, each.trained, each.request)
      terms = _terms(each, corrected)
      sigma = terms.sigma
      worst = each.retrained + MAX_DISTANCE * (1 - _ROUNDING) * _flat(each)
      certificate = _terms(each, worst).measured.result
      sharpness.append(certificate / distance(worst, each.retrained))
      refused.append(_is_refused(each, each.trained))
      apart = MAX_DISTANCE + federation.bound.retrain_error
      limits.append(_largest_auc(apart, sigma) + 0.02)
      tests = {
        "released": (corrected, sigma),
        "released, half the noise": (corrected, sigma / 2),
        "worst": (worst, sigma),
        "worst, half the noise": (worst, sigma / 2),
        "no correction": (each.trained, sigma),
        "no noise": (corrected, 0.0),
      }
      for index, (name, (params, spread)) in enumerate(tests.items()):
        auc = _auc(
          params,
          each.retrained,
          sigma=spread,
          step=terms.grid,
          samples=samples,
          entropy=np.random.default_rng([seed, index]).bytes,
        )
        rows[setting][name].append(auc)
  limit = max(limits)  # the same but for what training leaves

  return [
    claim("3h", "certificate / distance where no record bends the risk, least",
          ">=", 1 - _ROUNDING, min(sharpness)),
    claim("3i", "the same, largest (the certificate is attained)", "<=",
          1 + _ROUNDING, max(sharpness)),
    claim("4b", "LRT AUC of releases, largest", "<=", limit,
          column(rows, "released").max()),
    claim("4c", "LRT AUC of the worst model that passes, largest", "<=", limit,
          column(rows, "worst").max()),
    claim("4d", "the same with half the noise (must fail), least", ">", limit,
          column(rows, "worst, half the noise").min()),
    claim("4e", "LRT AUC without correction (must fail), least", ">", limit,
          column(rows, "no correction").min()),
    claim("4f", "LRT AUC without noise, least", ">=", 1,
          column(rows, "no noise").min()),
    claim("4g", "share of uncorrected models that are refused", ">=", 1,
          np.mean(refused)),
  ], table(
    f"Claim 4: AUC of the likelihood-ratio test, limit {limit:.4f}", rows
  )  # fmt: skip


def _largest_auc(apart: float, sigma: float) -> float:
  """Of any test between two Gaussians whose means are so far apart."""
  return float(stats.norm.cdf(apart / (math.sqrt(2) * sigma)))


def _terms(each: Case, params: Any) -> Release:
  return release(each.federation, params, each.request, seed=0).info["release"]


def _is_refused(each: Case, params: Any) -> bool:
  try:
    _terms(each, params)
  except NotReachedError:
    return True
  return False


def _flat(each: Case) -> jax.Array:
  """A direction in which no record bends any client's risk.

  All clients move alike, in the weight of a pixel that is always empty; there
  the certificates are attained.
  """
  unused = ~each.clients["input"].any(axis=(0, 1))
  direction = jnp.zeros_like(each.retrained)
  return direction.at[:, np.flatnonzero(unused)[0]].set(CLIENTS**-0.5)


def _auc(
  params: Any,
  retrained: Any,
  *,
  sigma: float,
  step: float,
  samples: int,
  entropy: noise.Entropy,
) -> float:
  """Of the likelihood ratio, a function of the place along the difference."""
  params, retrained = np.asarray(params), np.asarray(retrained)
  direction = (params - retrained) / np.linalg.norm(params - retrained)

  def places(model):
    released = noise.add(
      np.broadcast_to(model, (samples, *model.shape)),
      sigma=sigma,
      step=step,
      norm="joint",
      entropy=entropy,
    )
    return np.tensordot(released - retrained, direction, direction.ndim)

  scores = places(params), places(retrained)
  return float(stats.mannwhitneyu(*scores).statistic) / samples**2
