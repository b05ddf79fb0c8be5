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
    f"| {' | '.join([*key, 'n', *columns])} |",
    f"|{'---|' * (len(key) + 1 + len(columns))}",
  ]
  for setting, row in rows.items():
    cells = [*map(str, setting), str(len(row[columns[0]]))]
    cells += [_spread(row[column]) for column in columns]
    lines.append(f"| {' | '.join(cells)} |")
  return [*lines, ""]


def _spread(values: Sequence[float]) -> str:
  mean, low, high = np.mean(values), np.min(values), np.max(values)
  if low == high:
    return f"{mean:.3g}"
  return f"{mean:.3g} [{low:.3g}, {high:.3g}]"
