"""Lines in one pair of axes: any quantity against any other."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from junlearn.report import blocks
from junlearn.report.palette import Palette
from junlearn.report.panel import line, panel, short

Scale = Literal["linear", "log"]


class Series(NamedTuple):
  """One line.

  Attributes:
    label: the method's name, or any other.
    x: `[points]`.
    y: `[points]`; a single point is drawn as a dot.
  """

  label: str
  x: Sequence[float]
  y: Sequence[float]


def series(
  lines: Sequence[Series],
  *,
  title: str,
  x_label: str,
  y_label: str,
  scales: tuple[Scale, Scale] = ("linear", "linear"),
  caption: str = "",
) -> blocks.Figure:
  """Lines, and their first, middle and last points as a table.

  Args:
    lines: what to draw; what is not finite, or not above 0 on a logarithmic
      axis, is left out.
    title: of the figure.
    x_label: with the unit.
    y_label: with the unit.
    scales: of x and y.
    caption: a sentence.
  """
  kept = [_drawable(one, scales) for one in lines]

  def draw(palette: Palette) -> blocks.Drawing:
    def inner(axes: Axes):
      for one in kept:
        style = line(palette[one.label])
        if len(one.x) == 1:
          style |= {"marker": "o", "markersize": 5}
        axes.plot(one.x, one.y, **style)
      axes.set(xscale=scales[0], yscale=scales[1])
      axes.set(xlabel=short(x_label, 48), ylabel=short(y_label, 34))
      for axis, scale in zip((axes.xaxis, axes.yaxis), scales, strict=True):
        if scale == "log":  # its own labels are formulas, which are never read
          axis.set_major_formatter(lambda value, _: f"{value:g}")
          axis.set_minor_formatter(ticker.NullFormatter())

    names = ", ".join(one.label for one in kept)
    return blocks.Drawing(
      title,
      caption,
      [
        panel(
          inner,
          title=y_label,
          description=f"{y_label} against {x_label} for {names}.",
        )
      ],
      [(one.label, palette[one.label]) for one in kept],
      _numbers(kept, x_label, y_label),
    )

  return draw


def _drawable(one: Series, scales: tuple[Scale, Scale]) -> Series:
  x, y = (np.asarray(values, float).ravel() for values in (one.x, one.y))
  keep = np.isfinite(x) & np.isfinite(y)
  for values, scale in zip((x, y), scales, strict=True):
    keep &= (values > 0) | (scale == "linear")
  return Series(one.label, x[keep], y[keep])


def _numbers(lines, x_label, y_label) -> blocks.Table:
  rows = []
  for one in lines:
    count = len(one.x)
    for at in sorted({0, count // 2, count - 1}) if count else ():
      rows.append([one.label, f"{one.x[at]:.4g}", f"{one.y[at]:.3g}"])
  return blocks.plain_table(
    "First, middle and last point", ["Line", x_label, y_label], rows
  )
