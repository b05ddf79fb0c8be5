"""The figure that every report has: signed gaps to retraining, seed by seed."""

import math

import numpy as np
from matplotlib.axes import Axes

from junlearn.report import blocks
from junlearn.report.metric import Metric
from junlearn.report.palette import Palette
from junlearn.report.panel import panel, short
from junlearn.report.summary import PerSeed, Summary


def gaps(summary: Summary) -> blocks.Figure:
  """One panel per compared metric; the line at 0 is retraining."""
  methods = [m for m in summary.methods if m != "retrain"]

  def draw(palette: Palette) -> blocks.Drawing:
    def one(metric: Metric):
      def inner(axes: Axes):
        _dots(axes, summary, metric, methods, palette)

      return panel(
        inner,
        title=metric.label,
        description=f"{metric.label}: gaps to retraining of "
        f"{', '.join(methods)}; the table gives the numbers.",
        size=(3.7, 0.75 + 0.24 * len(methods)),
      )

    return blocks.Drawing(
      "Gap to retraining",
      "Method minus retraining of the same seed, for each metric. Dots: one "
      "seed each. Upright bars: the mean. Thin lines: 95 % interval of the "
      "mean, cut at the frame. On the black line a method equals retraining.",
      [one(m) for m in summary.metrics if m.compare],
      (),
      _numbers(summary, methods),
    )

  return draw


def _dots(axes: Axes, summary, metric: Metric, methods, palette) -> None:
  axes.axvline(0, color="black", linewidth=1.0)
  reach = [0.0]
  for height, method in enumerate(methods):
    gap = summary.entries[method][metric.name].gap
    if not gap.num_seeds:
      continue
    color = palette[method].color
    seeds = metric.scale * np.array([*gap.by_seed.values()])
    reach.extend(seeds)
    if gap.num_seeds > 1:
      ends = metric.scale * np.array(gap.interval)
      axes.plot(ends, [height] * 2, color=color, linewidth=1.0)
    axes.plot(seeds.mean(), height, "|", color=color, ms=11, mew=2.0)
    levels = np.full(seeds.size, height)
    axes.plot(seeds, levels, "o", color=color, ms=3.6, alpha=0.6)
  margin = 0.06 * ((max(reach) - min(reach)) or 1.0)
  unit = "points" if metric.unit == "%" else short(metric.unit)
  axes.set(
    xlim=(min(reach) - margin, max(reach) + margin),
    ylim=(max(len(methods), 1) - 0.5, -0.5),
    xlabel=f"Gap ({unit})" if unit else "Gap",
  )
  axes.set_yticks(range(len(methods)), [short(m) for m in methods])
  axes.tick_params(axis="y", length=0)


def _numbers(summary: Summary, methods) -> blocks.Table:
  metrics = [m for m in summary.metrics if m.compare]
  rows = [
    [
      method,
      *(_signed(m, summary.entries[method][m.name].gap) for m in metrics),
    ]
    for method in methods
  ]
  return blocks.plain_table(
    "Mean signed gap and its 95 % interval",
    ["Method", *(metric.heading for metric in metrics)],
    rows,
  )


def _signed(metric: Metric, gap: PerSeed) -> str:
  low, high = gap.interval
  if math.isnan(low):
    return metric.show(gap.mean)
  return f"{metric.show(gap.mean)} [{metric.show(low)}, {metric.show(high)}]"
