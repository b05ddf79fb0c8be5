"""Claim 3: NPO becomes gradient ascent, and is bounded where that is not.

With l = -S of an answer, both gradients are sums of those of l: ascent's with
weights -1 / n, NPO's with -w / n, w = 2 p^beta / (p^beta + p_ref^beta). They
are taken at the original model, which is NPO's reference, and where ascent and
NPO end at the common learning rate.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.claims.llm.bench import COMMON_RATE, Bench, median
from experiments.claims.table import table
from junlearn import language
from junlearn.methods import npo

_BETAS = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
_LEAST = min(_BETAS)


def claims(bench: Bench, cases: Sequence) -> tuple[list, list[str]]:
  """Parts of the claim, and cosines and ratios by place and beta."""
  loss = npo.sequence_loss(bench.study.model)
  rows, values, uniform = {}, [], []
  for case in cases:
    forget = language.with_reference(
      loss, case.original, case.task.request.forget
    )
    places = {"original": case.original} | {
      method: bench.unlearn(case, method, COMMON_RATE).params
      for method in ("npo", "ascent")
    }
    for place, params in places.items():
      nll, pull = _gradient(loss, params, forget)
      margins = nll - forget["reference"]
      ascent = pull(jnp.full_like(nll, -1 / nll.size))
      for beta in _BETAS:
        prefer = npo.preference(beta)
        own = pull(jax.vmap(jax.grad(prefer))(margins) / nll.size)
        row = rows.setdefault((place, beta), {"cosine": [], "ratio": []})
        row["cosine"].append(_cosine(own, ascent))
        row["ratio"].append(
          float(optax.tree.norm(own) / optax.tree.norm(ascent))
        )
        values.append(float(jnp.mean(prefer(margins))))
    tokens = language.num_targets(forget)
    guess = np.log(bench.study.config.vocab_size)
    uniform.append(float(jnp.sum(nll) / jnp.sum(tokens) / guess))
  at_start = [row for (place, _), row in rows.items() if place == "original"]
  on_path = [
    row
    for (place, beta), row in rows.items()
    if place != "original" and beta == _LEAST
  ]
  measured = [
    ("3a", "cosine of the gradients of NPO and ascent at the reference, least "
     "over beta", ">", 0.999, _least(at_start)),
    ("3b", "their ratio there, largest distance to 1", "<=", 1e-3,
     _off(at_start)),
    ("3c", f"cosine where NPO and ascent end, beta {_LEAST:g}, least", ">",
     0.999, _least(on_path)),
    ("3d", "their ratio there, largest distance to 1", "<=", 0.01,
     _off(on_path)),
    ("3e", "NPO's loss, least over beta, places and seeds", ">=", 0,
     min(values)),
    ("3f", "NLL of a token where ascent ends, over that of a uniform guess",
     ">", 2, median(uniform)),
  ]  # fmt: skip
  title = "claim 3: NPO's gradient beside ascent's"
  return measured, table(title, rows, key=("place", "beta"))


def _gradient(loss, params, examples):
  """Losses `[n]`, and the params' gradient of any weighting of them."""
  nll = jax.jit(lambda params: loss(params, examples)[0])
  values, pull = jax.vjp(nll, params)
  return values, lambda weights: pull(weights)[0]


def _cosine(a, b):
  dot = optax.tree.vdot(a, b)
  return float(dot / (optax.tree.norm(a) * optax.tree.norm(b)))


def _least(rows):
  return min(min(row["cosine"]) for row in rows)


def _off(rows):
  return max(abs(ratio - 1) for row in rows for ratio in row["ratio"])
