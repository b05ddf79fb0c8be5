"""Named tuples as JSON that has one form only.

`encode` writes a value in one way; `decode` accepts that way and no other, so
that every byte of a document counts.
"""

import functools
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

# Integers beyond are no doubles; nor are NaN and infinities below.
_LARGEST = 1e300


def encode(value: Any, *, indent: int | None = None) -> str:
  """The JSON of a named tuple, field by field, in the order of its class.

  Raises:
    ValueError: if a number is not finite.
  """
  return json.dumps(plain(value), indent=indent, allow_nan=False)


def decode(kind: Any, text: str, *, indent: int | None = None) -> Any:
  """The named tuple of class `kind` that `encode` wrote.

  Fields may be numbers, strings, booleans, None, named tuples, and
  `dict[str, ...]`, `tuple[..., ...]` and unions of these.

  Raises:
    ValueError: naming the first field that is unknown, missing, twice there or
      of another type, or if the text is not as `encode` writes it.
  """
  try:
    data = json.loads(
      text, object_pairs_hook=_unique, parse_constant=_no_constant
    )
  except (json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f"not JSON ({error})") from error
  value = _typed(kind, data, "")
  if encode(value, indent=indent) != text:
    raise ValueError("not written in the one form that is allowed")
  return value


_hints = functools.cache(typing.get_type_hints)


def plain(value: Any) -> Any:
  """Named tuples as dicts and tuples as lists, what JSON has."""
  if hasattr(value, "_asdict"):
    return {name: plain(each) for name, each in value._asdict().items()}
  if isinstance(value, dict):
    return {name: plain(each) for name, each in value.items()}
  if isinstance(value, tuple):
    return [plain(each) for each in value]
  return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
  """Pairs of a dotted name and a value that is no dict and no list."""
  value = plain(value)
  if isinstance(value, dict | list):
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in pairs:
      yield from leaves(each, f"{path}.{name}" if path else str(name))
  else:
    yield path, value


def _typed(kind, value, path):
  origin = typing.get_origin(kind)
  arguments = typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return _typed(_member(arguments, value), value, path)
  if origin is dict and isinstance(value, dict):
    inner = arguments[1]
    return {k: _typed(inner, v, f"{path}.{k}") for k, v in value.items()}
  if origin is tuple and isinstance(value, list):
    inner = arguments[0]
    return tuple(
      _typed(inner, each, f"{path}.{i}") for i, each in enumerate(value)
    )
  if hasattr(kind, "_fields") and isinstance(value, dict):
    return _named_tuple(kind, value, path)
  if origin is None and not hasattr(kind, "_fields") and _is(kind, value):
    return value
  shown = getattr(kind, "__name__", str(kind))
  raise ValueError(f"{_shown(path)} is {value!r}; it must be a {shown}")


def _member(kinds, value):
  """The one kind of a union that JSON's own types leave."""
  if value is None and types.NoneType in kinds:
    return types.NoneType
  present = [kind for kind in kinds if kind is not types.NoneType]
  wanted = isinstance(value, dict)
  fitting = [kind for kind in present if hasattr(kind, "_fields") == wanted]
  return (fitting or present)[0]


def _named_tuple(kind, value, path):
  hints = _hints(kind)
  for problem, names in (
    ("is missing", [name for name in hints if name not in value]),
    ("is unknown", [name for name in value if name not in hints]),
  ):
    if names:
      raise ValueError(f"{_shown(f'{path}.{names[0]}')} {problem}")
  return kind(
    **{
      name: _typed(hints[name], value[name], f"{path}.{name}") for name in hints
    }
  )


def _is(kind, value):
  if kind is types.NoneType:
    return value is None
  if isinstance(value, bool):
    return kind is bool
  if kind is float:
    return isinstance(value, int | float) and -_LARGEST < value < _LARGEST
  return isinstance(value, kind)


def _unique(pairs):
  names = [name for name, _ in pairs]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f"{name} is there twice")
  return dict(pairs)


def _no_constant(text):
  raise ValueError(f"{text} is not a number")


def _shown(path):
  return path.removeprefix(".") or "the document"
