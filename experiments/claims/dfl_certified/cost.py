"""Claim 6: what a certified release is worth, and what it costs."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.claims.dfl_certified.effort import (
  Effort,
  effort_of_correction,
  effort_of_rounds,
)
from experiments.claims.dfl_certified.federation import corrector
from experiments.claims.dfl_certified.mechanism import correct, release
from experiments.claims.dfl_certified.problem import Cases
from experiments.claims.dfl_certified.statement import (
  Measured,
  claim,
  column,
  empty,
)
from experiments.run.tables import table

_FINE = 1e-8  # |X - T(X)|, the second residual


def utility(cases: Cases, test: Any) -> Measured:
  """Accuracy on the test set: the mean over nodes, and of the mean model."""
  rows, gaps = empty(), []
  for setting, group in cases.items():
    row = rows[setting]
    for seed, each in enumerate(group):
      corrected = correct(each.federation, each.trained, each.request)
      released = release(each.federation, corrected, each.request, seed=seed)
      models = {
        "original": each.trained,
        "retrained": each.retrained,
        "released": released.params,
      }
      nodes, mean = {}, {}
      for name, params in models.items():
        head = each.federation.head
        nodes[name] = 100 * head.accuracy(params, test)
        mean[name] = 100 * head.accuracy(params.mean(0, keepdims=True), test)[0]
        row[name].append(nodes[name].mean())
        row[f"mean model, {name}"].append(mean[name])
      apart = nodes["released"] - nodes["retrained"]
      row["worst node, apart"].append(np.abs(apart).max())
      gaps += [apart.mean(), mean["released"] - mean["retrained"]]
  return [
    claim("6a", "test accuracy, release and retraining apart (points), largest",
          "<=", 1, np.abs(gaps).max()),
  ], table(
    "Claim 6: test accuracy in percent, mean over nodes and of the mean model",
    rows,
  )  # fmt: skip


def costs(
  cases: Cases, numbers: Sequence[str], *, distance: float | None, what: str
) -> Measured:
  """What one client communicates and computes, relative to retraining.

  Retraining goes on until its residual is that of the correction.

  Args:
    cases: requests.
    numbers: of the claims, two for each number of local steps.
    distance: to correct to by the certificate; None for a residual of 1e-8.
    what: of these cases, in words.
  """
  rows = empty()
  for setting, group in cases.items():
    row, (_, _, local_steps) = rows[setting], setting
    federation = group[0].federation
    target = distance or federation.distance(_FINE)
    stage = corrector(federation, max_distance=target)
    for each in group:
      retain = each.request.retain
      found = stage(jax.random.key(0), each.trained, each.request)
      own = effort_of_correction(found.info, local_steps)
      reached = federation.residual(found.params, retain)
      scratch, warm = (
        effort_of_rounds(
          federation.rounds_to(reached, start, retain), local_steps
        )
        for start in (federation.start(retain), each.trained)
      )
      of_scratch, of_warm = (
        Effort(*np.divide(own, other)) for other in (scratch, warm)
      )
      row["residual"].append(reached)
      row["communication rounds"].append(own.communication_rounds)
      row["retraining's"].append(scratch.communication_rounds)
      row["fraction"].append(of_scratch.communication_rounds)
      row["gradients"].append(own.gradients)
      row["fraction of retraining's"].append(of_scratch.gradients)
      row["warm start's rounds"].append(warm.communication_rounds)
      row["fraction of its rounds"].append(of_warm.communication_rounds)
      row["fraction of its gradients"].append(of_warm.gradients)

  claims, remaining = [], iter(numbers)
  for tau in dict.fromkeys(tau for *_, tau in rows):
    chosen = {setting: rows[setting] for setting in rows if setting[-1] == tau}
    for kind, name in (
      ("communication rounds", "fraction"),
      ("gradients", "fraction of retraining's"),
    ):
      quantity = f"{kind} / retraining's, {what}, tau {tau}, largest"
      largest = column(chosen, name).max()
      claims.append(claim(next(remaining), quantity, "<=", 0.1, largest))
  return claims, table(
    f"Claim 6: cost for one client, {what}; a Hessian-vector product counts as "
    "two gradients",
    rows,
  )
