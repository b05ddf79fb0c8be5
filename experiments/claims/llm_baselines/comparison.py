"""Claims 1, 2 and 4: what the metrics and an attacker say of each method."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.claims.llm_baselines.bench import (
  COMMON_RATE,
  Bench,
  Case,
  median,
)
from experiments.claims.llm_baselines.sanity import floor
from experiments.run.study import Evidence
from experiments.run.tables import table

UNTUNED = ("ascent", "grad_difference", "npo")
_RELEARNT = ("grad_difference", "npo")
# Column -> metric.
_SHOWN = {
  "log10 FQ": "forget_quality",
  "MU": "model_utility",
  "truth ratio": "truth_ratio",
  "EM": "exact_memorization",
  "ES": "extraction_strength",
  "ROUGE": "forget_rouge",
  "PrivLeak": "privleak",
  "held-out accuracy": "heldout_accuracy",
  "retained accuracy": "retain_accuracy",
  "after relearning": "relearn_full",
  "robustness": "relearn_robustness",
  "held-out, 4 bit": "heldout_4bit",
  "retained, 4 bit": "retain_4bit",
}


class Found(NamedTuple):
  """Evidence of every seed by model.

  Attributes:
    references: original, retrain and retrain, other seed.
    tuned: methods at the rates that were chosen.
    untuned: some of them at the common one.
  """

  references: Mapping[str, Sequence[Evidence]]
  tuned: Mapping[str, Sequence[Evidence]]
  untuned: Mapping[str, Sequence[Evidence]]


def compare(
  bench: Bench, cases: Sequence[Case], rates: Mapping[str, float]
) -> Found:
  """Audits the references, all methods and, untuned, some of them."""
  targets = [bench.audit(case, case.retrained, None) for case in cases]

  def audited(models: Sequence[Any]) -> list[Evidence]:
    return [
      bench.audit(case, params, target)
      for case, params, target in zip(cases, models, targets, strict=True)
    ]

  def unlearned(method, rate):
    return audited([bench.unlearn(case, method, rate).params for case in cases])

  return Found(
    {
      "original": audited([case.original for case in cases]),
      "retrain": targets,
      "retrain, other seed": audited([case.other for case in cases]),
    },
    {method: unlearned(method, rate) for method, rate in rates.items()},
    {method: unlearned(method, COMMON_RATE) for method in UNTUNED},
  )


def gold(found: Found) -> list:
  """Claim 1: retraining looks like retraining, the original does not."""
  utility = np.array(
    [_values(group, "model_utility") for group in found.references.values()]
  )
  quality = {
    name: median(_values(group, "forget_quality"))
    for name, group in found.references.items()
  }
  return [
    ("1a", "log10 FQ of a second retrained model", ">", math.log10(0.05),
     quality["retrain, other seed"]),
    ("1b", "log10 FQ of the original", "<", -6, quality["original"]),
    ("1c", "MU of original and both retrained, largest less least", "<=", 0.02,
     median(np.ptp(utility, axis=0))),
  ]  # fmt: skip


def over_unlearning(found: Found) -> list:
  """Claim 2: ascent ruins, GradDiff overshoots, NPO does not."""
  middle = {
    method: {
      metric: median(_values(group, metric))
      for metric in ("model_utility", "forget_quality", "privleak")
    }
    for method, group in found.untuned.items()
  }
  before = median(_values(found.references["original"], "model_utility"))
  diff, npo = middle["grad_difference"], middle["npo"]
  size = len(found.references["retrain"][0].arrays["truth/forget"])
  return [
    ("2a", "MU after ascent", "<=", 0.05, middle["ascent"]["model_utility"]),
    ("2b", "MU that GradDiff loses", "<=", 0.1, before - diff["model_utility"]),
    ("2c", "log10 FQ of GradDiff over that of samples apart", ">=", 0.9,
     diff["forget_quality"] / math.log10(floor(size))),
    ("2d", "PrivLeak of GradDiff", ">", 0, diff["privleak"]),
    ("2e", "log10 FQ, NPO less GradDiff", ">=", 10,
     npo["forget_quality"] - diff["forget_quality"]),
  ]  # fmt: skip


def relearning(found: Found) -> list:
  """Claim 4: what GradDiff and NPO hid comes back faster than it is learnt."""
  return [
    (f"4{letter}", f"robustness of {method} to relearning", "<", 1,
     median(_values(found.tuned[method], "relearn_robustness")))
    for letter, method in zip("ab", _RELEARNT, strict=True)
  ]  # fmt: skip


def tables(found: Found, rates: Mapping[str, float]) -> list[str]:
  """Markdown: all metrics of all models, and the attacker's curves."""
  named = {(name, ""): group for name, group in found.references.items()}
  named |= {
    (name, f"{rates[name]:g}"): group for name, group in found.tuned.items()
  }
  untuned = {
    (name, f"{COMMON_RATE:g}"): group for name, group in found.untuned.items()
  }
  curves = {
    setting: {
      f"{step:g} steps": [e.arrays["relearn/full"][row, 1] for e in group]
      for row, step in enumerate(group[0].arrays["relearn/full"][:, 0])
    }
    for setting, group in named.items()
    if all("relearn/full" in evidence.arrays for evidence in group)
  }
  key = ("model", "learning rate")
  return [
    *table("all methods, tuned", _columns(named), key=key),
    *table("claim 2: untuned, after as many steps", _columns(untuned), key=key),
    *table(
      "claim 4: accuracy on held-out questions while the request is relearnt",
      curves,
      key=key,
    ),
  ]


def _values(group: Sequence[Evidence], metric: str) -> list[float]:
  return [evidence.metrics.get(metric, math.nan) for evidence in group]


def _columns(models):
  return {
    setting: {name: _values(group, metric) for name, metric in _SHOWN.items()}
    for setting, group in models.items()
  }
