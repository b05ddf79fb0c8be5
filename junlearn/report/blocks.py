"""What a page is made of, before it becomes HTML or Markdown.

All text is plain: the renderers escape it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from junlearn.report.palette import Palette, Stroke


class Text(NamedTuple):
  """A paragraph; `lead` sets it larger."""

  text: str
  lead: bool = False


class Items(NamedTuple):
  """A bulleted list."""

  items: Sequence[str]


class Terms(NamedTuple):
  """Pairs of a term and its description."""

  pairs: Sequence[tuple[str, str]]


class Code(NamedTuple):
  """Text to be copied as it stands."""

  text: str


class Cell(NamedTuple):
  """One cell: the text, a smaller note under it, whether it stands out.

  `description` is what a screen reader reads in place of the note.
  """

  text: str
  note: str = ""
  description: str = ""
  strong: bool = False


class Table(NamedTuple):
  """A table; the first cell of a row heads it.

  `references` of the rows come first and are set apart.
  """

  caption: str
  header: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  references: int = 0


class Panel(NamedTuple):
  """One SVG, its heading, and what it shows for who cannot see it."""

  svg: str
  title: str
  description: str


class Drawing(NamedTuple):
  """Panels that flow side by side, one legend, and the numbers behind them."""

  title: str
  caption: str
  panels: Sequence[Panel]
  legend: Sequence[tuple[str, Stroke]]
  numbers: Table


# A figure is drawn late, by the page, so that a method has the same color in
# all figures of the page.
Figure = Callable[[Palette], Drawing]

Block = Text | Items | Terms | Code | Table | Drawing


class Section(NamedTuple):
  """A heading and what is under it."""

  title: str
  blocks: Sequence[Block]


class Page(NamedTuple):
  """The whole report."""

  title: str
  sections: Sequence[Section]


def plain_table(
  caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
  """A table of plain text."""
  return Table(caption, header, [[Cell(text) for text in row] for row in rows])
