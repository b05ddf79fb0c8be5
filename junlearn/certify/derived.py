"""Numbers that keep the theorem and the arguments they came from.

So that whoever reads a stored number can compute it again.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Union

from junlearn.certify import bounds, constants

# Whose result is a distance to retraining.
_DISTANCES = {
  function.__name__: function
  for function in (
    bounds.a_priori,
    bounds.fixed_point_residual,
    bounds.inexact_newton_step,
    bounds.newton_step,
    bounds.residual,
    bounds.sekhari,
    bounds.stacked_a_priori,
  )
}
# Those of them whose arguments are public, so that their result is known before
# the data are.
_A_PRIORI = ("a_priori", "sekhari", "stacked_a_priori")
_THEOREMS = _DISTANCES | {
  function.__name__: function
  for function in (
    bounds.guo,
    bounds.local_contraction,
    bounds.mixing_contraction,
  )
}
_HEADS = {f.__name__: f for f in (constants.logistic, constants.softmax)}
# Two computations of one formula, in double precision and on any machine.
_TOLERANCE = 1e-8


class Derived(NamedTuple):
  """A number and the theorem that gives it.

  Attributes:
    theorem: name of a function of `bounds`.
    arguments: all that it is given, by name; numbers or derived numbers.
    result: what it returns.
  """

  theorem: str
  arguments: dict[str, Union[float, "Derived"]]
  result: float


class Head(NamedTuple):
  """The constants of a linear head.

  Attributes:
    kind: name of a function of `constants`.
    arguments: all that it is given, by name.
    values: what it returns.
  """

  kind: str
  arguments: dict[str, float]
  values: constants.Constants


def derive(theorem: str, **arguments: float | Derived) -> Derived:
  """Applies a theorem and keeps what it was given.

  Raises:
    ValueError: if there is no such theorem, or its arguments are others.
  """
  if theorem not in _THEOREMS:
    raise ValueError(
      f"theorem is {theorem!r}; it must be one of {', '.join(_THEOREMS)}."
    )
  numbers = {
    name: value.result if isinstance(value, Derived) else value
    for name, value in arguments.items()
  }
  return Derived(theorem, arguments, _apply(_THEOREMS[theorem], numbers))


def head_of(kind: str, **arguments: float) -> Head:
  """The constants of a head, and what they were computed from.

  Raises:
    ValueError: if there is no such head, or its arguments are others.
  """
  if kind not in _HEADS:
    raise ValueError(
      f"head is {kind!r}; it must be one of {', '.join(_HEADS)}."
    )
  return Head(kind, arguments, _apply(_HEADS[kind], arguments))


def check_distance(
  path: str, derived: Derived, head: Head | None
) -> Iterator[str]:
  """Computes a distance again, and all that it was derived from.

  Args:
    path: the field that holds it.
    derived: as stored.
    head: arguments named as one of its constants must be that constant.

  Yields:
    A sentence for each field that does not agree.
  """
  if derived.theorem in _THEOREMS and derived.theorem not in _DISTANCES:
    yield f"{path}.theorem is {derived.theorem!r}, which bounds no distance."
  yield from _check(path, derived, head)


def check_theorem(name: str) -> None:
  """Refuses a theorem that bounds no distance.

  Raises:
    ValueError: naming it, and those that do.
  """
  if name not in _DISTANCES:
    raise ValueError(
      f"theorem is {name!r}; it must be one of {', '.join(_DISTANCES)}."
    )


def check_a_priori(derived: Derived) -> None:
  """Refuses a distance that is not the result of an a-priori theorem.

  Raises:
    ValueError: if the theorem measures, or the result is another.
  """
  if derived.theorem not in _A_PRIORI:
    raise ValueError(
      f"max_distance is the result of {derived.theorem!r}; it must be a number "
      f"chosen beforehand, or of one of {', '.join(_A_PRIORI)}."
    )
  for problem in check_distance("max_distance", derived, None):
    raise ValueError(problem)


def check_head(stored: Head) -> Iterator[str]:
  """Computes the constants again.

  Yields:
    A sentence for each field `head...` that does not agree.
  """
  try:
    again = head_of(stored.kind, **stored.arguments)
  except ValueError as error:
    yield f"head.arguments do not fit: {error}"
    return
  for name, value in again.values._asdict().items():
    yield from same(f"head.values.{name}", getattr(stored.values, name), value)


def _apply(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
  try:
    return function(**arguments)
  except (TypeError, ArithmeticError) as error:
    raise ValueError(f"{error}.") from error


def same(path: str, stored: float, computed: float) -> Iterator[str]:
  """Compares a stored number with what it is computed again to be.

  Yields:
    A sentence if they differ by more than rounding.
  """
  if not math.isclose(stored, computed, rel_tol=_TOLERANCE):
    yield f"{path} is {stored!r}; computed again it is {computed!r}."


def _check(path, derived, head):
  if derived.theorem not in _THEOREMS:
    yield f"{path}.theorem is {derived.theorem!r}; there is none of this name."
    return
  known = {**head.arguments, **head.values._asdict()} if head else {}
  for name, value in derived.arguments.items():
    where = f"{path}.arguments.{name}"
    if isinstance(value, Derived):
      yield from _check(where, value, head)
    elif name in known:
      yield from same(where, value, known[name])
  try:
    again = derive(derived.theorem, **derived.arguments)
  except ValueError as error:
    yield f"{path}.arguments do not fit the theorem: {error}"
  else:
    yield from same(f"{path}.result", derived.result, again.result)
