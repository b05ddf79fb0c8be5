"""Tables behind the claims."""

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
    rows: setting -> column -> values.
    key: what the parts of a setting are called.
  """
  columns = list(next(iter(rows.values())))
  lines = [
    f"## {title}",
    "",
    "Mean [least, largest].",
    "",
    row([*key, "n", *columns]),
    f"|{'---|' * (len(key) + 1 + len(columns))}",
  ]
  for setting, found in rows.items():
    spreads = [_spread(found[column]) for column in columns]
    lines.append(row([*setting, len(found[columns[0]]), *spreads]))
  return [*lines, ""]


def row(cells: Sequence[object]) -> str:
  """Markdown: one row of a table."""
  return f"| {' | '.join(map(str, cells))} |"


def _spread(values: Sequence[float]) -> str:
  mean, low, high = np.mean(values), np.min(values), np.max(values)
  if low == high:
    return f"{mean:.3g}"
  return f"{mean:.3g} [{low:.3g}, {high:.3g}]"
