"""Claim 1: the linearized recursion foresees what a deletion would do."""

import functools
import math

import jax.numpy as jnp
import numpy as np

from experiments.claims.dfl_certified.federation import Federation
from experiments.claims.dfl_certified.problem import Cases, distance, graphs
from experiments.claims.dfl_certified.statement import (
  Measured,
  claim,
  column,
  empty,
)
from experiments.run.tables import table
from junlearn.clients import gossip, influence, rounds, topology
from junlearn.clients.retraining import for_all

_ROUNDS = 40


def claims(cases: Cases) -> Measured:
  """What the recursion foresees against two real runs."""
  rows = empty()
  for setting, group in cases.items():
    federation = group[0].federation
    run, foresee = _programs(federation)
    errors = rows[setting]
    for each in group:
      start, retain = federation.start(each.clients), each.request.retain
      true = run(start, retain) - run(start, each.clients)
      size = float(jnp.linalg.norm(true))
      errors["true influence"].append(size)
      for name, function in foresee.items():
        found = function(start, each.clients, retain)[1].value
        errors[name].append(distance(found, true) / size)

  def worst(how):
    chosen = {setting: rows[setting] for setting in rows if setting[1] == how}
    return column(chosen, "linearized").max()

  ratio = column(rows, "powers of W") / column(rows, "linearized")
  return [
    claim("1a", "linearized influence, worst relative error, iid", "<", 0.01,
     worst("iid")),
    claim("1b", "linearized influence, worst relative error, sorted", "<", 0.05,
     worst("sorted")),
    claim("1c", "error of powers of W / error linearized, least", ">=", 10,
     ratio.min()),
    claim("1d", "W^k apart from 1/N, less rho^k (1 - 1/N), largest, k <= 40",
     "<=", 1e-12, max(map(_mixing_excess, graphs(0).values()))),
  ], table(
    f"Claim 1: influence after {_ROUNDS} rounds, and relative errors", rows
  )  # fmt: skip


@functools.lru_cache(maxsize=16)
def _programs(federation: Federation):
  """Training, and the influence foreseen by each recursion."""

  def compiled(body):
    return for_all(body, "vmap")

  def foreseen(mix):
    return influence.propagate(
      federation.round, federation.round, num_rounds=_ROUNDS, mix=mix
    )

  powers = foreseen(gossip.dense(federation.training.mixing))
  return (
    compiled(rounds.iterate(federation.round, num_rounds=_ROUNDS)),
    {"linearized": compiled(foreseen(None)), "powers of W": compiled(powers)},
  )


def _mixing_excess(adjacency: np.ndarray) -> float:
  """How far powers of W exceed their bound; negative within it."""
  mixing = topology.metropolis_hastings(adjacency)
  rho, n = topology.spectrum(mixing).rho, len(mixing)
  power, excess = np.eye(n), -math.inf
  for k in range(1, _ROUNDS + 1):
    power = power @ mixing
    apart = np.abs(power - 1 / n).max()
    excess = max(excess, float(apart - rho**k * (1 - 1 / n)))
  return excess
