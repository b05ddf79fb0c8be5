"""Matplotlib to a small SVG that stands inside an HTML page.

Only objects are used, no pyplot: nothing is left open and threads may draw.
The same input gives the same bytes.
"""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from junlearn.report.blocks import Panel
from junlearn.report.palette import Stroke

_INK = "#333333"

# Text stays text (small, searchable, in the page's font), and never formulas:
# a `$` in a label is the user's.
_STYLE: Any = {
  "svg.fonttype": "none",
  "svg.hashsalt": "junlearn",
  "text.parse_math": False,
  "axes.unicode_minus": True,
  # Vertices nearer than this to a straight line, in pixels, are dropped.
  "path.simplify_threshold": 0.3,
  "font.size": 9,
  "text.color": _INK,
  "axes.edgecolor": _INK,
  "axes.labelcolor": _INK,
  "axes.linewidth": 0.7,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "xtick.color": _INK,
  "ytick.color": _INK,
  "xtick.major.width": 0.7,
  "ytick.major.width": 0.7,
  "axes.grid": True,
  "grid.color": "#e4e4e4",
  "grid.linewidth": 0.6,
  "axes.axisbelow": True,
}


def short(text: str, width: int = 22) -> str:
  """The text on one line, cut to what an axis has room for."""
  text = " ".join(text.split())
  return text if len(text) <= width else f"{text[: width - 1]}…"


def line(stroke: Stroke) -> dict:
  """The stroke as keywords of `Axes.plot`."""
  dashed = (0, stroke.dash) if stroke.dash else "-"
  return {
    "color": stroke.color,
    "linestyle": dashed,
    "linewidth": stroke.width,
    "solid_capstyle": "butt",
  }


def panel(
  draw: Callable[[Axes], None],
  *,
  title: str,
  description: str,
  size: tuple[float, float] = (3.7, 2.8),
) -> Panel:
  """Draws on fresh axes of `size` inches and returns the SVG."""
  stream = io.StringIO()
  with matplotlib.rc_context(_STYLE):
    canvas = Canvas(figsize=size, layout="constrained")
    FigureCanvasSVG(canvas)
    draw(canvas.add_subplot())
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    canvas.savefig(stream, format="svg", metadata=nothing)
  return Panel(_embeddable(stream.getvalue()), title, description)


def _embeddable(document: str) -> str:
  """Keeps the drawing and drops what belongs to a file of its own.

  The prologue and the style element, which would apply to the whole page; the
  size, which the page sets; the fonts, which are the page's; and the names of
  groups, which would be the same in all figures.
  """
  svg = document[document.index("<svg") :]
  svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
  svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
  svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
  svg = re.sub(r" font-family: [^;\"]*;", "", svg)
  return re.sub(r"\s*\n\s*", "\n", svg).strip()
