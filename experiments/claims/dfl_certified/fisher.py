"""Claim 5: Fisher matrices in the place of the Hessian, on one model.

The records of all clients together, of which 32 are forgotten. Inputs are the
images as they are, and the images less their mean.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.dfl_certified.heads import HEADS, Head, features
from experiments.claims.dfl_certified.problem import distance
from experiments.claims.dfl_certified.statement import Measured, claim, empty
from experiments.run.tables import table
from junlearn import objective
from junlearn.curvature import (
  conjugate_gradient,
  diagonal_fisher,
  empirical_fisher,
  gauss_newton,
  hessian,
)
from junlearn.data import Dataset, select
from junlearn.loss import cross_entropy
from junlearn.methods import newton
from junlearn.transform import Request

_L2 = 0.01
_FORGOTTEN = 32


def claims(digits: Dataset, seeds: int) -> Measured:
  """One step by each curvature, from the same gradient."""
  pixels = digits.train["input"].reshape(len(digits.train["id"]), -1)
  centers = {"raw": None, "centered": pixels.mean(0, dtype=np.float64)}
  rows, apart = empty(), []
  for name, head in HEADS.items():
    measure = jax.jit(
      lambda key, w, request, h=head: _steps(key, h, w, request)
    )
    for inputs, center in centers.items():
      train = head.labeled(features(digits.train, center=center))
      trained = _optimum(head, train)
      row = rows[name, inputs]
      for seed in range(seeds):
        ids = np.random.default_rng(seed).choice(
          train["id"], _FORGOTTEN, replace=False
        )
        request = select.by_id(train, ids)
        retrained = _optimum(head, request.retain)
        params, error = measure(jax.random.key(seed), trained, request)
        apart.append(float(error))
        for step, reached in params.items():
          row[step].append(distance(reached, retrained))

  def ratio(a, b, inputs=("raw", "centered")):
    return max(
      np.max(np.divide(row[a], row[b]))
      for (_, kind), row in rows.items()
      if kind in inputs
    )

  return [
    claim("5a", "Gauss-Newton and Hessian products, relative difference",
          "<=", 1e-10, max(apart)),
    claim("5b", "distance after Newton / after the full Fisher, largest",
          "<=", 0.1, ratio("Newton", "Fisher")),
    claim("5c", "distance after the full Fisher / no-op, largest", "<", 1,
          ratio("Fisher", "no-op")),
    claim("5d", "distance after the diagonal Fisher / no-op, centered, largest",
          "<", 1, ratio("diagonal Fisher", "no-op", ("centered",))),
  ], table(
    f"Claim 5: distance to retraining after one step, {_FORGOTTEN} records; "
    "Fisher matrices are empirical",
    rows,
    key=("head", "inputs"),
  )  # fmt: skip


def _optimum(head: Head, examples: Any) -> jax.Array:
  """The minimizer of the risk, from scratch."""
  solve = newton.transform(head.model, l2=_L2, num_steps=30, tolerance=1e-6)
  start = head.start(examples["input"].shape[-1])
  found = solve(jax.random.key(0), start, Request(None, examples))
  if not found.info.residual <= 1e-12:
    raise ArithmeticError(
      f"the optimum is reached to {float(found.info.residual):.2g} only."
    )
  return found.params


def _steps(key, head: Head, params, request: Request):
  """Params after each step, and how far two curvatures are apart."""
  model, retain = head.model, request.retain
  loss = cross_entropy(model)
  gradient = jax.grad(objective.risk(loss, l2=_L2))(params, retain)
  products = {
    "Newton": hessian(loss, params, retain, damping=_L2),
    "Fisher": empirical_fisher(loss, params, retain, damping=_L2),
  }
  moved = {"no-op": params}
  for name, product in products.items():
    step, _ = conjugate_gradient(
      product, gradient, tolerance=1e-10, max_steps=2000
    )
    moved[name] = params - step
  diagonal = diagonal_fisher(model, params, retain, labels="observed")
  moved["diagonal Fisher"] = params - gradient / (diagonal + _L2)
  v = jax.random.normal(key, params.shape, params.dtype)
  exact = hessian(loss, params, retain)(v)
  other = gauss_newton(model, params, retain)(v)
  error = jnp.linalg.norm(other - exact) / jnp.linalg.norm(exact)
  return moved, error
