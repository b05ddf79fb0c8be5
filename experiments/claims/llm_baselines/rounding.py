"""Claim 5: rounding undoes what small steps have done.

GradDiff, whose retain term is a cross-entropy, stops at the same accuracy on
held-out questions at every learning rate.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from experiments.claims.llm_baselines.bench import RATES, Bench, Case, median
from experiments.language.study import Study
from experiments.language.tasks import Task
from experiments.run.tables import table
from junlearn import language
from junlearn.audit import quantize
from junlearn.early_stopping import StopRule

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
    f"{_STOP:g} on held-out questions, measured every {_EVERY} steps of "
    f"{_steps(bench.study)} at most"
  )
  return measured, table(title, rows, key=("model", "learning rate"))


def _steps(study: Study) -> int:
  """The most that one run may take."""
  return _BUDGETS * study.recipe.unlearn_steps


def _stopped(bench: Bench, case: Case, rate: float) -> dict[str, float]:
  outcome = bench.unlearn(
    case,
    _METHOD,
    rate,
    name="stopped",
    stop=_stop(bench.study, case.task),
    num_steps=_steps(bench.study),
  )
  found = _rounded(bench, case, outcome.params)
  return found | {"steps": outcome.notes["steps"]}


def _stop(study: Study, task: Task) -> StopRule:
  """At an accuracy on held-out paraphrases; for small models."""
  examples = study.corpus.encode(task.parts["heldout"])

  def accuracy(key, params, request):
    del key, request
    logits, _ = study.model.apply(params, examples["input"])
    target, mask = language.targets(examples)
    right = jnp.argmax(language.predictions(logits), axis=-1) == target
    return jnp.mean(jnp.all(right | ~mask, axis=1).astype(jnp.float32))

  return StopRule(lambda now, first: now <= _STOP, accuracy, _EVERY)


def _rounded(bench: Bench, case: Case, params: Any) -> dict[str, float]:
  found = {"steps": math.nan}
  for name, each in (
    ("", params),
    (f", {_BITS} bit", quantize.quantize(params, bits=_BITS)),
  ):
    metrics, _ = bench.knowledge(case, each)
    found |= {
      f"ES{name}": metrics["extraction_strength"],
      f"held-out accuracy{name}": metrics["heldout_accuracy"],
      f"model utility{name}": metrics["model_utility"],
    }
  same = quantize.same_codes(params, case.original, bits=_BITS)
  return found | {"weights rounded as the original's": same}
