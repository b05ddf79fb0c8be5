"""Tables in Markdown."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def table(
  title: str,
  rows: Mapping[Sequence[object], Mapping[str, Sequence[float]]],
  *,
  key: Sequence[str] = ("head", "records", "tau"),
) -> list[str]:
  """Markdown: mean, least and largest of each column in each setting.

  Args:
    title: of the section.
    rows: setting -> column -> values; NaN where there is none.
    key: what the parts of a setting are called.
  """
  columns = list(next(iter(rows.values())))
  lines = section(title, [*key, "n", *columns], "Mean [least, largest].")
  for setting, found in rows.items():
    spreads = [_spread(found[column]) for column in columns]
    lines.append(row([*setting, len(found[columns[0]]), *spreads]))
  return [*lines, ""]


def section(title: str, columns: Sequence[str], note: str = "") -> list[str]:
  """Markdown: a section that begins with a sentence and a table's columns."""
  said = [note, ""] if note else []
  return [f"## {title}", "", *said, *header(columns)]


def header(columns: Sequence[str]) -> list[str]:
  """Markdown: the first two rows of a table."""
  return [row(columns), f"|{'---|' * len(columns)}"]


def row(cells: Sequence[object]) -> str:
  """Markdown: one row of a table."""
  return f"| {' | '.join(map(str, cells))} |"


def verdict(passed: bool) -> str:
  """How a table says whether something held."""
  return "passed" if passed else "**failed**"


def _spread(values: Sequence[float]) -> str:
  """Mean and range of the values that are there."""
  found = [value for value in values if not math.isnan(value)]
  if not found:
    return "-"
  mean, low, high = np.mean(found), np.min(found), np.max(found)
  text = f"{mean:.3g}" if low == high else f"{mean:.3g} [{low:.3g}, {high:.3g}]"
  missing = len(found) < len(values)
  return f"{text} of {len(found)}" if missing else text
