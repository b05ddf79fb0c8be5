"""Checks of arguments: a value out of range is refused in one sentence.

Each takes arguments by their names, `positive(l2=l2, damping=damping)`, and
raises a `ValueError` that names the first one that is out of range, its value
and what is allowed. NaN is never allowed. What a trace stands for is not known
yet and passes.
"""

import math
from collections.abc import Iterable, Iterator

import jax

Number = float | jax.Array


def positive(**values: Number) -> None:
  """Finite and above 0.

  Raises:
    ValueError: naming the first that is not.
  """
  for name, value in _known(values):
    if not 0 < float(value) < math.inf:
      raise ValueError(f"{name} is {value}; it must be finite and above 0.")


def at_least(least: float, **values: Number) -> None:
  """Finite and `least` or above.

  Raises:
    ValueError: naming the first that is not.
  """
  for name, value in _known(values):
    if not least <= float(value) < math.inf:
      finite = "finite and " if float(value) == math.inf else ""
      raise ValueError(
        f"{name} is {value}; it must be {finite}at least {least}."
      )


def fraction(**values: Number) -> None:
  """A part of a whole, which may be all of it but not nothing.

  Raises:
    ValueError: naming the first that is not in (0, 1].
  """
  within("(0, 1]", **values)


def within(interval: str, **values: Number) -> None:
  """In an interval.

  Args:
    interval: as it is written, such as "[0, 1)": a bracket stands beside an end
      that is part of it, a parenthesis beside one that is not.
    **values: the arguments.

  Raises:
    ValueError: naming the first that is not.
  """
  low, high = map(float, interval[1:-1].split(","))
  for name, value in _known(values):
    x = float(value)
    above = low <= x if interval[0] == "[" else low < x
    below = x <= high if interval[-1] == "]" else x < high
    if not (above and below):
      raise ValueError(f"{name} is {value}; it must be in {interval}.")


def one_of(allowed: Iterable[str], **values: object) -> None:
  """One of a few words, such as `typing.get_args` has of a `Literal`.

  Raises:
    ValueError: naming the first that is not.
  """
  words = list(allowed)
  *others, last = map(repr, words)
  for name, value in values.items():
    if not isinstance(value, str) or value not in words:
      all_of_them = f"{', '.join(others)} or {last}" if others else last
      raise ValueError(f"{name} is {value!r}; it must be {all_of_them}.")


def _known(values: dict[str, Number]) -> Iterator[tuple[str, Number]]:
  """What is no tracer; text is no number, though `float` would read it."""
  for name, value in values.items():
    if isinstance(value, str | bytes):
      raise TypeError(f"{name} is {value!r}; it must be a number.")
    if not isinstance(value, jax.core.Tracer):
      yield name, value
