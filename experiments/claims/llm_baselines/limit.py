"""Claim 3: NPO becomes gradient ascent, and is bounded where that is not.

With l = -S of an answer, both gradients are sums of those of l: ascent's with
weights -1 / n, NPO's with -w / n, w = 2 p^beta / (p^beta + p_ref^beta). They
are taken at the original model, which is NPO's reference, and where ascent and
NPO end at the common learning rate.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.claims.llm_baselines.bench import (
  COMMON_RATE,
  Bench,
  Case,
  median,
)
from experiments.run.tables import table
from junlearn import language
from junlearn.loss import Loss
from junlearn.methods import npo

_BETAS = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)


class Beside(NamedTuple):
  """NPO beside ascent: cosine and ratio of gradients, and its loss."""

  cosine: float
  ratio: float
  loss: float


def claims(bench: Bench, cases: Sequence[Case]) -> tuple[list, list[str]]:
  """Parts of the claim, and cosines and ratios by place and beta."""
  loss = npo.sequence_loss(bench.study.model)
  points: dict[tuple[str, float], list[Beside]] = {}
  uniform = []
  for case in cases:
    forget = language.with_reference(
      loss, case.original, case.task.request.forget
    )
    places = {"original": case.original} | {
      method: bench.unlearn(case, method, COMMON_RATE).params
      for method in ("npo", "ascent")
    }
    for place, params in places.items():
      for beta, point in beside_ascent(loss, params, forget).items():
        points.setdefault((place, beta), []).append(point)
    nll = jnp.sum(language.losses(loss, places["ascent"], forget))
    guess = jnp.sum(language.num_targets(forget)) * np.log(
      bench.study.config.vocab_size
    )
    uniform.append(float(nll / guess))
  every = [point for group in points.values() for point in group]
  at_start, at_end = (
    [
      point
      for (place, beta), group in points.items()
      for point in group
      if (place == "original") == start and beta in betas
    ]
    for start, betas in ((True, _BETAS), (False, _BETAS[-1:]))
  )
  measured = [
    ("3a", "cosine of the gradients of NPO and ascent at the reference, least "
     "over beta", ">", 0.999, min(point.cosine for point in at_start)),
    ("3b", "their ratio there, largest distance to 1", "<=", 1e-3,
     max(abs(point.ratio - 1) for point in at_start)),
    ("3c", f"cosine where NPO and ascent end, beta {_BETAS[-1]:g}, least", ">",
     0.999, min(point.cosine for point in at_end)),
    ("3d", "their ratio there, largest distance to 1", "<=", 0.01,
     max(abs(point.ratio - 1) for point in at_end)),
    ("3e", "NPO's loss, least over beta, places and seeds", ">=", 0,
     min(point.loss for point in every)),
    ("3f", "NLL of a token where ascent ends, over that of a uniform guess",
     ">", 2, median(uniform)),
  ]  # fmt: skip
  rows = {
    setting: {
      name: [getattr(point, name) for point in group] for name in Beside._fields
    }
    for setting, group in points.items()
  }
  title = "claim 3: NPO's gradient beside ascent's"
  return measured, table(title, rows, key=("place", "beta"))


def beside_ascent(
  loss: Loss, params: Any, examples: Any
) -> dict[float, Beside]:
  """What becomes of NPO as beta falls.

  Args:
    loss: -S of each example.
    params: where gradients are taken.
    examples: with their loss at the `reference`.
  """
  nll, pull = jax.vjp(jax.jit(lambda params: loss(params, examples)[0]), params)
  (ascent,) = pull(jnp.full_like(nll, -1 / nll.size))
  margins = nll - examples["reference"]

  def point(beta):
    prefer = npo.preference(beta)
    (of_npo,) = pull(jax.vmap(jax.grad(prefer))(margins) / nll.size)
    norms = optax.tree.norm(of_npo), optax.tree.norm(ascent)
    return Beside(
      float(optax.tree.vdot(of_npo, ascent) / (norms[0] * norms[1])),
      float(norms[0] / norms[1]),
      float(jnp.mean(prefer(margins))),
    )

  return {beta: point(beta) for beta in _BETAS}
