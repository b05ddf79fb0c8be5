"""The page as one HTML file: no network, no script, all text escaped."""

import html
import importlib.resources
import itertools
import re
from collections.abc import Iterator

from junlearn.report import blocks
from junlearn.report.palette import Stroke

# Should any text ever slip through unescaped, the browser still loads and runs
# nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def _escape(text: str) -> str:
  return html.escape(str(text))


def _class(name: str, wanted: bool) -> str:
  return f' class="{name}"' if wanted else ""


def _cell(cell: blocks.Cell) -> str:
  text = _escape(cell.text)
  if not cell.note:
    return text
  note = _escape(cell.note)
  if cell.description:
    note = (
      f'<span aria-hidden="true">{note}</span>'
      f'<span class="description">{_escape(cell.description)}</span>'
    )
  return f'{text}<span class="note">{note}</span>'


def _row(row, *, kind: str) -> str:
  head, *cells = row
  body = "".join(
    f"<td{_class('closest', cell.strong)}>{_cell(cell)}</td>" for cell in cells
  )
  return f'<tr class="{kind}"><th scope="row">{_cell(head)}</th>{body}</tr>'


def _table(table: blocks.Table) -> Iterator[str]:
  caption = _escape(table.caption)
  yield f'<figure class="table"><figcaption>{caption}</figcaption>'
  # Focusable, so that the keyboard can scroll it.
  yield (
    f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
    "<table><thead><tr>"
  )
  yield from (f'<th scope="col">{_escape(h)}</th>' for h in table.header)
  yield "</tr></thead>"
  cut = table.references
  for kind, rows in (
    ("reference", table.rows[:cut]),
    ("method", table.rows[cut:]),
  ):
    if rows:
      yield "<tbody>"
      yield from (_row(row, kind=kind) for row in rows)
      yield "</tbody>"
  yield "</table></div></figure>"


def _key(label: str, stroke: Stroke) -> str:
  dashes = " ".join(f"{length * stroke.width:.1f}" for length in stroke.dash)
  return (
    '<li><svg class="key" viewBox="0 0 26 6" aria-hidden="true">'
    f'<line x1="0" y1="3" x2="26" y2="3" stroke="{stroke.color}" '
    f'stroke-width="{stroke.width}" stroke-dasharray="{dashes or "none"}"/>'
    f"</svg>{_escape(label)}</li>"
  )


def _panel(panel: blocks.Panel, prefix: str) -> str:
  # Ids must differ between the drawings of a page. Matplotlib escapes ">" in
  # text, so that nothing outside a tag is touched.
  svg = re.sub(
    r"<[^>]*>",
    lambda tag: re.sub(r'(\bid="|url\(#|href="#)', rf"\1{prefix}", tag[0]),
    panel.svg,
  )
  label = f'<svg role="img" aria-label="{_escape(panel.description)}"'
  return (
    f'<div class="panel"><h4>{_escape(panel.title)}</h4>'
    f"{svg.replace('<svg', label, 1)}</div>"
  )


def _drawing(drawing: blocks.Drawing, number: int) -> Iterator[str]:
  yield f'<figure class="drawing"><h3>{_escape(drawing.title)}</h3>'
  if drawing.legend:
    keys = "".join(itertools.starmap(_key, drawing.legend))
    yield f'<ul class="legend">{keys}</ul>'
  yield '<div class="panels">'
  for index, panel in enumerate(drawing.panels):
    yield _panel(panel, f"f{number}-{index}-")
  yield f"</div><figcaption>{_escape(drawing.caption)}</figcaption>"
  yield "<details><summary>The numbers</summary>"
  yield from _table(drawing.numbers)
  yield "</details></figure>"


def _block(block: blocks.Block, number: int) -> Iterator[str]:
  match block:
    case blocks.Text(text, lead):
      yield f"<p{_class('lead', lead)}>{_escape(text)}</p>"
    case blocks.Items(items):
      yield f"<ul>{''.join(f'<li>{_escape(i)}</li>' for i in items)}</ul>"
    case blocks.Terms(pairs):
      terms = "".join(
        f"<div><dt>{_escape(k)}</dt><dd>{_escape(v)}</dd></div>"
        for k, v in pairs
      )
      yield f"<dl>{terms}</dl>"
    case blocks.Code(text):
      yield f"<pre><code>{_escape(text)}</code></pre>"
    case blocks.Table():
      yield from _table(block)
    case blocks.Drawing():
      yield from _drawing(block, number)


def as_html(page: blocks.Page) -> str:
  """Renders the page."""
  files = importlib.resources.files(__package__)
  style = files.joinpath("page.css").read_text(encoding="utf-8")
  title = _escape(page.title)
  lines = [
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>",
    f"<main>\n<h1>{title}</h1>",
  ]
  numbers = itertools.count(1)
  for section in page.sections:
    lines.append(f"<section>\n<h2>{_escape(section.title)}</h2>")
    for block in section.blocks:
      lines += _block(block, next(numbers))
    lines.append("</section>")
  return "\n".join([*lines, "</main>\n</body>\n</html>\n"])
