"""Which leaves of the params are free.

    split: params -> (free, fixed)        merge: (free, fixed) -> params

A view is a lens: merging what was split gives the params back, and splitting
what was merged gives the parts back (on the leaves that are free).

Where the params are a dict with a key `params` (flax's convention), what stands
beside that key is state, such as batch statistics, and never free: optimizers
and weight decay must not touch it.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from junlearn import tree
from junlearn.model import Model
from junlearn.typing import Params, PyTree


class View(NamedTuple):
  """A lens on params; leaves that are not part of a side are None in it.

  Attributes:
    split: `params -> (free, fixed)`.
    merge: `(free, fixed) -> params`.
    must_move: whether a step whose gradients are all zero is an error, as it
      is for adapters, which a model can leave out unnoticed.
  """

  split: Callable[[Params], tuple[Params, Params]]
  merge: Callable[[Params, Params], Params]
  must_move: bool = False


def full() -> View:
  """Every leaf is free, but for state."""
  return only("")


def only(pattern: str) -> View:
  """The leaves whose name, such as `params/dense/kernel`, the pattern finds.

  Args:
    pattern: regular expression, matched with `re.search`.

  Raises:
    ValueError: if the pattern is not a regular expression; and when applied,
      if it finds no leaf.
  """
  try:
    matcher = re.compile(pattern)
  except re.error as error:
    raise ValueError(
      f"only: pattern {pattern!r} is not a regular expression ({error})."
    ) from error

  def split(params):
    learned = _learned(params)

    def part(is_free):
      def keep(name, leaf):
        found = bool(learned.search(name) and matcher.search(name))
        return leaf if found == is_free else None

      return tree.map_leaves(keep, params)

    free = part(True)
    if not jax.tree.leaves(free):
      names = [
        n for n in jax.tree.leaves(tree.names(params)) if learned.search(n)
      ]
      raise ValueError(
        f"only: pattern {pattern!r} finds no leaf; the names begin: "
        f"{', '.join(list(names)[:5])}."
      )
    return free, part(False)

  def merge(free, fixed):
    return jax.tree.map(
      lambda a, b: b if a is None else a,
      free,
      fixed,
      is_leaf=lambda leaf: leaf is None,
    )

  return View(split, merge)


def layers(*names: str) -> View:
  """The leaves below the modules named, e.g. `layers("Dense_0", "head")`.

  Raises:
    ValueError: if no name is given; and when applied, if none is found.
  """
  if not names:
    raise ValueError("layers: no names were given; at least one is needed.")
  choices = "|".join(re.escape(name) for name in names)
  return only(rf"(^|/)({choices})(/|$)")


def where(mask: PyTree) -> View:
  """The entries where a boolean mask is true (a saliency mask, say).

  Masking acts on the merged params and not on gradients, so that momentum and
  weight decay cannot move a masked entry either. Fixed entries of a free leaf
  are 0, so that norms and penalties of what is free do not count them.

  Args:
    mask: pytree of booleans with the structure and shapes of the params; what
      it says of state is not read.
  """

  def select(free, fixed):
    return jax.tree.map(
      lambda a, b, m: b if a is None else jnp.where(m, a, b),
      free,
      fixed,
      mask,
      is_leaf=lambda leaf: leaf is None,
    )

  def split(params):
    learned, _ = full().split(params)
    return select(learned, jax.tree.map(jnp.zeros_like, learned)), params

  return View(split, select)


def restrict(model: Model, view: View, params: Params) -> tuple[Model, Params]:
  """The model as a function of its free leaves, and those leaves.

  For curvature and solvers, whose vectors have the structure of what is free.
  The fixed leaves are constants; refreshed batch statistics are dropped.
  """
  free, fixed = view.split(params)

  def apply(free, inputs, key=None):
    outputs, _ = model.apply(view.merge(free, fixed), inputs, key)
    return outputs, free

  def init(key, inputs):
    return view.split(model.init(key, inputs))[0]

  return Model(init, apply), free


def _learned(params: Params) -> re.Pattern[str]:
  """Finds the names of leaves that are not state."""
  flax = isinstance(params, Mapping) and "params" in params
  return re.compile("^params(/|$)" if flax else "")
