"""A graph of clients whose nodes show a quantity."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from junlearn.report import blocks
from junlearn.report.palette import Palette
from junlearn.report.panel import panel

_COLORS = matplotlib.colormaps["YlOrRd"]
_LABELED = 40  # more nodes than these are drawn without text


class Nodes(NamedTuple):
  """One picture of the graph.

  Attributes:
    title: what the color shows.
    values: `[clients]`, at least 0.
  """

  title: str
  values: Sequence[float]


def network(
  adjacency: Any,
  pictures: Sequence[Nodes],
  *,
  title: str,
  marked: int | None = None,
  caption: str = "",
) -> blocks.Figure:
  """The graph once for each quantity, all with one logarithmic color scale.

  Args:
    adjacency: `[clients, clients]`; an edge where it is not 0.
    pictures: what the nodes show.
    title: of the figure.
    marked: a client to be drawn with a thick rim.
    caption: a sentence.
  """
  adjacency = np.asarray(adjacency) != 0
  clients = len(adjacency)
  angle = 2 * np.pi * np.arange(clients) / clients
  place = np.stack([np.sin(angle), np.cos(angle)], -1)
  edges = np.argwhere(np.triu(adjacency, 1))
  values = [np.asarray(p.values, float) for p in pictures]
  positive = np.concatenate([v[v > 0] for v in values])
  low, high = (positive.min(), positive.max()) if positive.size else (1, 1)
  norm = LogNorm(low, high if high > low else 10 * low, clip=True)

  def one(picture: Nodes, numbers: np.ndarray):
    def inner(axes: Axes):
      for a, b in edges:
        axes.plot(*place[[a, b]].T, color="#b0b0b0", linewidth=0.8, zorder=1)
      shades = _COLORS(norm(np.maximum(numbers, low)))
      rims = np.where(np.arange(clients) == marked, 2.4, 0.7)
      axes.scatter(
        place[:, 0], place[:, 1], s=560 if clients <= _LABELED else 40,
        c=shades, edgecolors="#333333", linewidths=rims.tolist(), zorder=2,
      )  # fmt: skip
      if clients <= _LABELED:
        for (x, y), number, shade in zip(place, numbers, shades, strict=True):
          dark = np.dot(shade[:3], (0.3, 0.6, 0.1)) < 0.55
          axes.text(
            x, y, f"{number:.1e}", ha="center", va="center", fontsize=6,
            color="white" if dark else "black", zorder=3,
          )  # fmt: skip
      axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
      axes.set_axis_off()

    return panel(
      inner,
      title=picture.title,
      description=f"The graph of {clients} clients; {picture.title} is at most "
      f"{numbers.max():.2g}.",
      size=(3.7, 3.5),
    )

  def draw(palette: Palette) -> blocks.Drawing:
    del palette
    return blocks.Drawing(
      title,
      caption,
      [one(p, v) for p, v in zip(pictures, values, strict=True)],
      (),
      blocks.plain_table(
        "By client",
        ["Client", *(p.title for p in pictures)],
        [
          [str(client), *(f"{v[client]:.3g}" for v in values)]
          for client in range(clients)
        ],
      ),
    )

  return draw
