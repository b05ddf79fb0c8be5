"""Claim 5: rounding undoes what small steps have done.

GradDiff, whose retain term is a cross-entropy, stops at the same accuracy on
held-out questions at every learning rate.
"""

import math
from collections.abc import Sequence

from experiments.claims.llm_baselines.bench import RATES, Bench, Case, median
from experiments.language.study import Recipe
from experiments.run.table import table
from junlearn.audit import quantise

_METHOD = "grad_difference"
_STOP = 0.1
_BUDGETS = 10  # within which the least learning rate should get there
_EVERY = 2
_BITS = 4


def claims(bench: Bench, cases: Sequence[Case]) -> tuple[list, list[str]]:
  """Parts of the claim, and what rounding does at each learning rate."""
  rows = {
    ("original", ""): [_rounded(bench, case, case.original) for case in cases],
    ("retrain", ""): [_rounded(bench, case, case.retrained) for case in cases],
  }
  for rate in RATES:
    rows[_METHOD, f"{rate:g}"] = [_stopped(bench, case, rate) for case in cases]
  rows = {
    setting: {name: [row[name] for row in group] for name in group[0]}
    for setting, group in rows.items()
  }

  def risen(setting):
    row = rows[setting]
    return median(
      after - before
      for before, after in zip(row["ES"], row["ES, 4 bit"], strict=True)
    )

  low, high = (risen((_METHOD, f"{rate:g}")) for rate in (RATES[0], RATES[-1]))
  measured = [
    ("5a", f"ES that 4 bits bring back to GradDiff, rate {RATES[0]:g}", ">=",
     0.1, low),
    ("5b", "change of ES by 4 bits after retraining", "<=", 0.05,
     abs(risen(("retrain", "")))),
    ("5c", f"what they bring back at rate {RATES[0]:g} less at {RATES[-1]:g}",
     ">", 0, low - high),
  ]  # fmt: skip
  title = (
    "claim 5: 4-bit weights, GradDiff stopped at an accuracy of at most "
    f"{_STOP:g} on held-out questions, looked at every {_EVERY} steps of "
    f"{steps(bench.study.recipe)} at most"
  )
  return measured, table(title, rows, key=("model", "learning rate"))


def steps(recipe: Recipe) -> int:
  """The most that one run may take."""
  return _BUDGETS * recipe.unlearn_steps


def _stopped(bench: Bench, case: Case, rate: float) -> dict[str, float]:
  outcome = bench.study.unlearn(
    f"stopped-{rate:g}",
    case.seed,
    case.task,
    case.original,
    method=_METHOD,
    learning_rate=rate,
    stop=_STOP,
    every=_EVERY,
    num_steps=steps(bench.study.recipe),
  )
  found = _rounded(bench, case, outcome.params)
  return found | {"steps": outcome.notes["steps"]}


def _rounded(bench: Bench, case: Case, params) -> dict[str, float]:
  found = {"steps": math.nan}
  for name, each in (
    ("", params),
    (f", {_BITS} bit", quantise.quantise(params, bits=_BITS)),
  ):
    metrics, _ = bench.knowledge(case, each)
    found |= {
      f"ES{name}": metrics["extraction_strength"],
      f"held-out accuracy{name}": metrics["heldout_accuracy"],
      f"model utility{name}": metrics["model_utility"],
    }
  same = quantise.same_codes(params, case.original, bits=_BITS)
  return found | {"weights rounded as the original's": same}
