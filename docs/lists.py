"""Lists in docstrings, as Markdown wants them.

A docstring's list may follow its sentence at once, and what belongs to an item
is indented by two; Markdown wants an empty line and four.
"""

from collections.abc import Iterator
from typing import Any

import griffe


class Lists(griffe.Extension):
  """Rewrites the docstrings that the API pages show."""

  def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
    """Rewrites one."""
    if obj.docstring:
      lines = obj.docstring.value.splitlines()
      obj.docstring.value = "\n".join(spaced(lines))


def spaced(lines: list[str]) -> Iterator[str]:
  """The lines of a docstring, its outermost lists with more space."""
  in_list = False
  for line in lines:
    begins = line.startswith("- ")
    inside = line.startswith("  ")
    if begins or (in_list and line and not inside):
      yield ""
    in_list = begins or (in_list and (inside or not line))
    yield f"  {line}" if in_list and inside else line
