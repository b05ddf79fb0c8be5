"""Claim 2: one stacked Newton step, and the order of what it leaves."""

import jax
import numpy as np

from experiments.claims.dfl_certified.federation import corrector
from experiments.claims.dfl_certified.problem import Cases, distance
from experiments.claims.dfl_certified.statement import (
  Measured,
  claim,
  column,
  empty,
)
from experiments.run.tables import table

_FRACTIONS = 0.5 ** np.arange(5)


def claims(cases: Cases) -> Measured:
  """One step on requests that are answered by a fraction of their weight."""
  rows = empty()
  for setting, group in cases.items():
    federation = group[0].federation
    step = corrector(federation, num_steps=1, tolerance=1e-8)
    row = rows[setting]
    for each in group:
      gone = each.request.forget["weight"]
      errors = []
      for fraction in _FRACTIONS:
        weight = each.clients["weight"] - fraction * gone
        weight = weight.astype(np.float32)  # exact: powers of 1/2
        request = each.request._replace(
          retain={**each.clients, "weight": weight}
        )
        retrained = federation.train(request.retain)
        moved = step(jax.random.key(0), each.trained, request).params
        errors.append(
          [distance(each.trained, retrained), distance(moved, retrained)]
        )
      noop, newton = np.transpose(errors)
      row["no-op"].append(noop[0])
      row["Newton"].append(newton[0])
      row["reduction"].append(noop[0] / newton[0])
      for name, values in (("no-op", noop), ("Newton", newton)):
        slope = np.polyfit(np.log(_FRACTIONS), np.log(values), 1)[0]
        row[f"order {name}"].append(slope)

  def off(name, order):
    return np.abs(column(rows, f"order {name}") - order).max()

  return [
    claim("2a", "distance to retraining, no-op / one Newton step, least", ">=",
     100, column(rows, "reduction").min()),
    claim("2b", "order of the no-op's distance, furthest from 1", "<=", 0.3,
     off("no-op", 1)),
    claim("2c", "order of Newton's distance, furthest from 2", "<=", 0.3,
     off("Newton", 2)),
  ], table(
    "Claim 2: distance to retraining, and its order in what is removed", rows
  )  # fmt: skip
