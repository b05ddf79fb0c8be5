"""One line style per method, the same in all figures of a page."""

from typing import NamedTuple

# Dark members of the Okabe-Ito and Tol sets: told apart under the common kinds
# of color blindness, and with enough contrast on white. Neither list's length
# divides the other's, so that 21 methods get different pairs.
_COLORS = (
  "#0072b2",
  "#d55e00",
  "#117733",
  "#aa4499",
  "#332288",
  "#b8860b",
  "#1a9e9e",
)
_DASHES = ((), (5.0, 1.6), (1.6, 1.2))


class Stroke(NamedTuple):
  """Color, width, and lengths of dash and space in line widths."""

  color: str
  dash: tuple[float, ...] = ()
  width: float = 1.6


class Palette(dict[str, Stroke]):
  """Strokes by method; a new name gets the next free stroke."""

  def __init__(self, methods=()):
    super().__init__(
      original=Stroke("#808080", dash=(4.0, 2.0)),
      retrain=Stroke("#000000", width=2.2),
    )
    self._references = len(self)
    for method in methods:
      self[method]

  def __missing__(self, method: str) -> Stroke:
    index = len(self) - self._references
    color = _COLORS[index % len(_COLORS)]
    self[method] = Stroke(color, _DASHES[index % len(_DASHES)])
    return self[method]
