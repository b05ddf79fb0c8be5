"""One page that says how close unlearning came to retraining.

    report.write(workdir, title=..., request=report.Deletion(...),
                 metrics=[report.Metric(...)], rows=rows,
                 figures=[report.roc(curves)], not_proven=[...], config=config)

It takes rows of `results.jsonl`, descriptions of their metrics and figures; it
knows nothing about models or modalities.
"""

from junlearn.report.forest import gaps
from junlearn.report.graph import Nodes, network
from junlearn.report.judgement import over_forgotten, verdict
from junlearn.report.lines import Series, series
from junlearn.report.metric import Metric
from junlearn.report.page import Chapter, Deletion, write
from junlearn.report.plots import (
  Curve,
  Roc,
  Values,
  distributions,
  roc,
  trajectories,
)
from junlearn.report.summary import Entry, PerSeed, Summary, summarize

__all__ = [
  "Chapter",
  "Curve",
  "Deletion",
  "Entry",
  "Metric",
  "Nodes",
  "PerSeed",
  "Roc",
  "Series",
  "Summary",
  "Values",
  "distributions",
  "gaps",
  "network",
  "over_forgotten",
  "roc",
  "series",
  "summarize",
  "trajectories",
  "verdict",
  "write",
]
