"""Figures from data: each function returns a figure that the page draws.

Labels that are names of methods get the style of the method.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from junlearn.report import blocks
from junlearn.report.metric import show
from junlearn.report.palette import Palette
from junlearn.report.panel import line, panel, short

_BINS = 30
_QUANTILES = (10, 25, 50, 75, 90)
_RATES = (0.001, 0.01, 0.1)


class Roc(NamedTuple):
  """One ROC curve.

  Attributes:
    label: the method's name.
    fpr: false positive rates, ascending `[points]`.
    tpr: true positive rates `[points]`.
  """

  label: str
  fpr: Sequence[float]
  tpr: Sequence[float]


class Values(NamedTuple):
  """One value per example, such as the confidence in the true class.

  Attributes:
    label: the method's name.
    values: `[n]`; those that are not finite are left out.
  """

  label: str
  values: Sequence[float]


class Curve(NamedTuple):
  """A course of unlearning.

  Attributes:
    label: the method's name; a reference may have a single step and is drawn
      as a level.
    steps: `[points]`.
    forget: the measure on the forget examples `[points]`.
    retain: the same on the retained examples `[points]`.
  """

  label: str
  steps: Sequence[float]
  forget: Sequence[float]
  retain: Sequence[float]


def _legend(items, palette: Palette):
  return [(item.label, palette[item.label]) for item in items]


def roc(
  curves: Sequence[Roc], *, title: str = "Attack ROC", caption: str = ""
) -> blocks.Figure:
  """ROC curves of an attack, on linear and on logarithmic axes.

  The logarithmic ones show what matters to single records: how many members
  are found while almost nobody is accused wrongly.
  """

  def draw(palette: Palette) -> blocks.Drawing:
    def linear(axes: Axes):
      axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=0.8)
      for curve in curves:
        axes.plot(curve.fpr, curve.tpr, **line(palette[curve.label]))
      axes.set(xlim=(0, 1), ylim=(0, 1))
      axes.set(xlabel="False positive rate", ylabel="True positive rate")

    def logarithmic(axes: Axes):
      linear(axes)
      axes.lines[0].set_data(*[np.geomspace(1e-4, 1, 50)] * 2)
      ticks = [0.001, 0.01, 0.1, 1]
      names = ["0.001", "0.01", "0.1", "1"]
      axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1))
      axes.set_xticks(ticks, names)
      axes.set_yticks(ticks, names)
      axes.minorticks_off()

    names = ", ".join(curve.label for curve in curves)
    return blocks.Drawing(
      title,
      caption,
      [
        panel(
          linear,
          title="Linear axes",
          description=f"ROC curves of {names}; the diagonal is a blind guess.",
        ),
        panel(
          logarithmic,
          title="Logarithmic axes",
          description=f"The same ROC curves of {names}, from rates of 0.001.",
        ),
      ],
      _legend(curves, palette),
      _roc_numbers(curves),
    )

  return draw


def _roc_numbers(curves: Sequence[Roc]) -> blocks.Table:
  rows = []
  for curve in curves:
    fpr, tpr = np.asarray(curve.fpr, float), np.asarray(curve.tpr, float)
    found = [max(tpr[fpr <= rate], default=np.nan) for rate in _RATES]
    area = np.trapezoid(tpr, fpr) if fpr.size > 1 else np.nan
    rows.append([curve.label, *(show(float(x), 3) for x in (area, *found))])
  header = ["Method", "AUC", *(f"TPR at FPR {rate:g}" for rate in _RATES)]
  return blocks.plain_table("Area and true positive rates", header, rows)


def distributions(
  samples: Sequence[Values],
  *,
  x_label: str,
  title: str = "Confidence on the forget examples",
  caption: str = "",
) -> blocks.Figure:
  """One histogram per method over those of `retrain` and `original`."""
  key = "Grey: retraining. Dashed: before unlearning. Colored: the method."
  data = {s.label: _finite(s.values) for s in samples}
  pooled = np.concatenate([np.zeros(0), *data.values()])
  edges = np.histogram_bin_edges(pooled, _BINS)
  fractions = {
    label: np.histogram(values, edges)[0] / max(values.size, 1)
    for label, values in data.items()
  }
  top = 1.05 * max((part.max() for part in fractions.values()), default=1.0)

  def draw(palette: Palette) -> blocks.Drawing:
    def steps(axes: Axes, label: str, **keywords):
      if label in fractions:
        style = {**line(palette[label]), **keywords}
        style.pop("solid_capstyle")
        axes.stairs(fractions[label], edges, **style)

    def one(label: str):
      def inner(axes: Axes):
        steps(axes, "retrain", fill=True, color="#d4d4d4")
        steps(axes, "original", linewidth=1.0)
        steps(axes, label, linestyle="-")
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, top or 1.0))
        axes.set(xlabel=short(x_label, 48), ylabel="Fraction of examples")

      return panel(
        inner,
        title=label,
        description=f"Histogram of {x_label} for {label}, over retraining's.",
        size=(3.7, 2.4),
      )

    shown = [s for s in samples if s.label not in ("original", "retrain")]
    return blocks.Drawing(
      title,
      f"{key} {caption}".strip(),
      [one(sample.label) for sample in shown],
      (),
      _distribution_numbers(data),
    )

  return draw


def _finite(values: Sequence[float]) -> np.ndarray:
  flat = np.asarray(values, float).ravel()
  return flat[np.isfinite(flat)]


def _distribution_numbers(data: dict[str, np.ndarray]) -> blocks.Table:
  target = data.get("retrain", np.zeros(0))
  rows = []
  for label, values in data.items():
    known = values.size > 0
    cuts = np.quantile(values, np.divide(_QUANTILES, 100)) if known else []
    cells = [show(float(c), 3) for c in cuts] or ["n/a"] * len(_QUANTILES)
    rows.append([label, *cells, show(_kolmogorov(values, target), 3)])
  header = ["Method", *(f"{q} %" for q in _QUANTILES), "KS to retrain"]
  return blocks.plain_table(
    "Quantiles, and the Kolmogorov-Smirnov distance to retraining "
    "(largest difference of the distribution functions)",
    header,
    rows,
  )


def _kolmogorov(a: np.ndarray, b: np.ndarray) -> float:
  if not (a.size and b.size):
    return np.nan
  with np.errstate(all="ignore"):  # of the p-value of tiny samples
    return float(stats.ks_2samp(a, b, method="asymp").statistic)


def trajectories(
  curves: Sequence[Curve],
  *,
  labels: tuple[str, str] = ("Forget accuracy", "Retain accuracy"),
  x_label: str = "Unlearning step",
  title: str = "On the way",
  caption: str = "",
) -> blocks.Figure:
  """A measure on forget and retain examples against unlearning steps."""

  def draw(palette: Palette) -> blocks.Drawing:
    def one(field: str, label: str):
      def inner(axes: Axes):
        for curve in curves:
          style, values = line(palette[curve.label]), getattr(curve, field)
          if len(curve.steps) > 1:
            axes.plot(curve.steps, values, **style)
          elif len(values):
            style.pop("solid_capstyle")
            axes.axhline(values[0], **style)
        axes.set(xlabel=short(x_label, 48), ylabel=short(label, 34))

      names = ", ".join(curve.label for curve in curves)
      return panel(
        inner,
        title=label,
        description=f"{label} against {x_label.lower()} for {names}.",
      )

    return blocks.Drawing(
      title,
      caption,
      [one("forget", labels[0]), one("retain", labels[1])],
      _legend(curves, palette),
      _trajectory_numbers(curves, labels),
    )

  return draw


def _trajectory_numbers(curves: Sequence[Curve], labels) -> blocks.Table:
  rows = []
  for curve in curves:
    count = len(curve.steps)
    # First, middle and last; a level has only one.
    for at in sorted({0, count // 2, count - 1}) if count else ():
      numbers = (curve.forget[at], curve.retain[at])
      step = f"{curve.steps[at]:g}" if count > 1 else "level"
      rows.append([curve.label, step, *(show(float(x), 3) for x in numbers)])
  header = ["Method", "Step", *labels]
  return blocks.plain_table("At the first, middle and last step", header, rows)
