"""The page as GitHub Markdown: figures are given by their numbers."""

import html
import re
from collections.abc import Iterator

from junlearn.report import blocks


def _escape(text: str) -> str:
  """Plain text as Markdown that shows it, on one line."""
  line = html.escape(" ".join(str(text).split()), quote=False)
  return re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", line)


def _cell(cell: blocks.Cell) -> str:
  text = _escape(cell.text)
  text = f"**{text}**" if cell.strong else text
  return f"{text} ({_escape(cell.note)})" if cell.note else text


def _table(table: blocks.Table) -> Iterator[str]:
  yield f"{_escape(table.caption)}\n"
  yield f"| {' | '.join(_escape(name) for name in table.header)} |"
  yield f"| {' | '.join(['---'] + ['---:'] * (len(table.header) - 1))} |"
  for row in table.rows:
    yield f"| {' | '.join(_cell(cell) for cell in row)} |"


def _code(text: str) -> Iterator[str]:
  # A fence must be longer than any run of backticks that it encloses.
  longest = max((len(run) for run in re.findall("`+", text)), default=0)
  fence = "`" * max(3, longest + 1)
  yield f"{fence}\n{text}\n{fence}"


def _block(block: blocks.Block) -> Iterator[str]:
  match block:
    case blocks.Text(text):
      yield _escape(text)
    case blocks.Items(items):
      yield from (f"- {_escape(item)}" for item in items)
    case blocks.Terms(pairs):
      yield from (f"- **{_escape(k)}**: {_escape(v)}" for k, v in pairs)
    case blocks.Code(text):
      yield from _code(text)
    case blocks.Table():
      yield from _table(block)
    case blocks.Drawing():
      yield f"### {_escape(block.title)}\n"
      if block.caption:
        yield f"{_escape(block.caption)}\n"
      yield from _table(block.numbers)


def as_markdown(page: blocks.Page) -> str:
  """Renders the page."""
  parts = [f"# {_escape(page.title)}"]
  for section in page.sections:
    parts.append(f"## {_escape(section.title)}")
    parts += ["\n".join(_block(block)) for block in section.blocks]
  return "\n\n".join(part for part in parts if part) + "\n"
