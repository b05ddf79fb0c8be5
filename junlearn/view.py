"""Which leaves of the params are free.

    split: params -> (free, fixed)        merge: (free, fixed) -> params

A view is a lens: merging what was split gives the params back, and splitting
what was merged gives the parts back (on the leaves that are free).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from junlearn import tree


class View(NamedTuple):
  """A lens on params; leaves that are not part of a side are None in it."""

  split: Callable[[Any], tuple[Any, Any]]
  merge: Callable[[Any, Any], Any]


def full() -> View:
  """All leaves are free."""
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
    def part(is_free):
      return tree.map_leaves(
        lambda name, leaf: (
          leaf if bool(matcher.search(name)) == is_free else None
        ),
        params,
      )

    free = part(True)
    if not jax.tree.leaves(free):
      names = ", ".join(jax.tree.leaves(tree.names(params))[:5])
      raise ValueError(
        f"only: pattern {pattern!r} finds no leaf; the names begin: {names}."
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


def weights() -> View:
  """What optimisers move unless told otherwise.

  The leaves below the key `params` where there is one (flax's convention;
  batch statistics stand beside it), all leaves where there is none.
  """

  def pick(params):
    flax = isinstance(params, Mapping) and "params" in params
    return only("^params(/|$)") if flax else full()

  return View(
    split=lambda params: pick(params).split(params),
    merge=full().merge,
  )


def layers(*names: str) -> View:
  """The leaves below the modules named, e.g. `layers("Dense_0", "head")`.

  Raises:
    ValueError: if no name is given; and when applied, if none is found.
  """
  if not names:
    raise ValueError("layers: no names were given; at least one is needed.")
  choices = "|".join(re.escape(name) for name in names)
  return only(rf"(^|/)({choices})(/|$)")


def where(mask: Any) -> View:
  """The entries where a boolean mask is true (a saliency mask, say).

  Masking acts on the merged params and not on gradients, so that momentum and
  weight decay cannot move a masked entry either.

  Args:
    mask: pytree of booleans with the structure and shapes of the params.
  """

  def merge(free, fixed):
    return jax.tree.map(jax.numpy.where, mask, free, fixed)

  return View(split=lambda params: (params, params), merge=merge)
