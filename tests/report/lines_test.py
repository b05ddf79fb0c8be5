"""Lines and graphs: what is drawn is what was given."""

import numpy as np
import pytest

from junlearn import report
from junlearn.report.palette import Palette


def numbers(drawing):
  return [[cell.text for cell in row] for row in drawing.numbers.rows]


def test_first_middle_and_last_points():
  line = report.Series("m", [1, 2, 3, 4], [10.0, 20.0, 30.0, 40.0])
  figure = report.series([line], title="t", x_label="x", y_label="y")
  assert numbers(figure(Palette())) == [
    ["m", "1", "10"],
    ["m", "3", "30"],
    ["m", "4", "40"],
  ]


@pytest.mark.parametrize(
  ("scales", "kept"),
  [(("linear", "linear"), 3), (("linear", "log"), 2), (("log", "log"), 1)],
)
def test_what_an_axis_cannot_show_is_left_out(scales, kept):
  line = report.Series("m", [0, 1, 2, np.nan], [1.0, 1.0, -1.0, 1.0])
  figure = report.series(
    [line], title="t", x_label="x", y_label="y", scales=scales
  )
  drawing = figure(Palette())
  assert len(numbers(drawing)) == kept
  assert drawing.legend == [("m", Palette(["m"])["m"])]


def test_logarithmic_axes_are_labeled_in_plain_text():
  line = report.Series("m", [1e-3, 1.0], [1e-5, 1.0])
  figure = report.series(
    [line], title="t", x_label="x", y_label="y", scales=("log", "log")
  )
  (panel,) = figure(Palette()).panels
  assert ">0.001<" in panel.svg and "mathdefault" not in panel.svg


def test_a_graph_has_its_edges_and_the_values_of_its_nodes():
  adjacency = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
  pictures = [
    report.Nodes("before", [1.0, 0.5, 0.25]),
    report.Nodes("after", [1e-6, 0.0, 2e-6]),
  ]
  figure = report.network(adjacency, pictures, title="t", marked=1)
  drawing = figure(Palette())
  assert [panel.title for panel in drawing.panels] == ["before", "after"]
  assert numbers(drawing) == [
    ["0", "1", "1e-06"],
    ["1", "0.5", "0"],
    ["2", "0.25", "2e-06"],
  ]
  for text in ("1.0e+00", "5.0e-01", "2.5e-01"):
    assert text in drawing.panels[0].svg
  assert drawing.panels[0].svg.count("stroke: #b0b0b0") == 2  # two edges


def test_many_nodes_are_drawn_without_text():
  adjacency = np.ones((100, 100))
  figure = report.network(
    adjacency, [report.Nodes("n", np.ones(100))], title="t"
  )
  assert "1.0e+00" not in figure(Palette()).panels[0].svg
