"""The sections of the page, and the two files that it is written to."""

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from junlearn.report import blocks, cost, judgement
from junlearn.report.as_html import as_html
from junlearn.report.as_markdown import as_markdown
from junlearn.report.closeness import closeness
from junlearn.report.forest import gaps
from junlearn.report.metric import Metric
from junlearn.report.palette import Palette
from junlearn.report.summary import summarize
from junlearn.storage import files

_LEFT_OUT = (
  "Their ids are left out here: whoever may know them finds them in the "
  "folder's `private/requests.json`."
)


class Deletion(NamedTuple):
  """The request, as the page tells it.

  Attributes:
    ids: ids of what was to be forgotten.
    total: how many there were before.
    selection: how they were chosen, as a sentence.
    noun: what an id stands for ("training records", "clients").
    private: whether the page tells only how many, neither the ids nor their
      SHA-256, by which whoever knows the ids in question could try them all.
  """

  ids: Sequence[int | str]
  total: int
  selection: str
  noun: str = "training records"
  private: bool = False

  @property
  def digest(self) -> str:
    """SHA-256 of the ids, one per line, as `LC_ALL=C sort | sha256sum`."""
    lines = sorted(f"{i}\n".encode() for i in self.ids)
    return hashlib.sha256(b"".join(lines)).hexdigest()

  @property
  def abbreviated(self) -> str:
    """The first and the last ids."""
    try:
      ids = [str(i) for i in sorted(self.ids)]
    except TypeError:  # numbers and strings together
      ids = sorted(str(i) for i in self.ids)
    shown = ids if len(ids) <= 9 else [*ids[:6], "…", *ids[-2:]]
    return ", ".join(shown) or "none"


def _request(request: Deletion) -> list[blocks.Block]:
  count = len(request.ids)
  fraction = (
    f" ({100 * count / request.total:.3g}\N{NO-BREAK SPACE}%)"
    if request.total
    else ""
  )
  asked = blocks.Text(
    f"Forget {count:,} of {request.total:,} {request.noun}{fraction}. "
    f"{request.selection}"
  )
  if request.private:
    return [asked, blocks.Text(_LEFT_OUT)]
  return [
    asked,
    blocks.Terms(
      [
        ("Ids", request.abbreviated),
        ("SHA-256 of the sorted ids, one per line", request.digest),
      ]
    ),
  ]


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
  """Nested records as (dotted name, text) pairs."""
  if isinstance(value, Mapping):
    dot = name and f"{name}."
    return [p for key, v in value.items() for p in _flat(v, f"{dot}{key}")]
  if isinstance(value, (list, tuple)):
    return [(name, "; ".join(str(item) for item in value))]
  return [(name, str(value))]


def _certificate(certificate: Mapping[str, Any] | None) -> list[blocks.Block]:
  if not certificate:
    return [
      blocks.Text(
        "No certificate: the methods above come without a proven bound. What "
        "this page shows is measured."
      )
    ]
  return [blocks.Terms(_flat(certificate))]


def _reproduce(config: Mapping[str, Any]) -> list[blocks.Block]:
  rest = {key: value for key, value in config.items() if key != "command"}
  command = config.get("command", ())
  if not isinstance(command, str):
    command = shlex.join(str(word) for word in command)
  code = [blocks.Code(command)] if command else []
  return [*code, blocks.Terms(_flat(rest))]


class Chapter(NamedTuple):
  """One request, and how it was met.

  Attributes:
    request: what was to be forgotten.
    metrics: what to report, in the order of the columns.
    rows: rows of `results.jsonl`, see `summarize` and `cost.cost_table`.
    figures: from `roc`, `distributions`, `trajectories` or the caller's own;
      the gaps to retraining are always drawn first.
    name: of the request, where a page has several.
    sections: further ones, after the figures.
    verdict: the summary in words; None takes `report.verdict`'s.
  """

  request: Deletion
  metrics: Iterable[Metric]
  rows: Iterable[Mapping[str, Any]]
  figures: Sequence[blocks.Figure] = ()
  name: str = ""
  sections: Sequence[blocks.Section] = ()
  verdict: str | None = None


def _sections(chapter: Chapter) -> tuple[str, list[blocks.Section]]:
  """A chapter's verdict and its sections."""
  rows = list(chapter.rows)
  summary = summarize(rows, chapter.metrics)
  palette = Palette(summary.methods)
  drawings = [draw(palette) for draw in (gaps(summary), *chapter.figures)]
  sections = [
    blocks.Section("The request", _request(chapter.request)),
    blocks.Section("How close to retraining", closeness(summary)),
    blocks.Section("Figures", drawings),
    *chapter.sections,
    blocks.Section("Time and memory", [cost.cost_table(rows)]),
  ]
  if chapter.name:
    sections = [
      s._replace(title=f"{chapter.name}: {s.title[:1].lower()}{s.title[1:]}")
      for s in sections
    ]
  return chapter.verdict or judgement.verdict(summary), sections


def write(
  directory: str | Path,
  *,
  title: str,
  not_proven: Sequence[str],
  config: Mapping[str, Any],
  certificate: Mapping[str, Any] | None = None,
  chapters: Sequence[Chapter] = (),
  **chapter: Any,
) -> Path:
  """Writes `report.md` and `report.html`.

  Both are composed before either is touched, and each replaces its predecessor
  in one step: a reader never sees half a report, and an exception leaves the
  old one. The same arguments give the same bytes.

  Args:
    directory: where to; created if missing.
    title: of the page.
    not_proven: what a reader might wrongly conclude, a sentence each.
    config: how to run it again; `command` (a string or a list of words) is set
      apart, the rest is listed.
    certificate: what was proven, nested dicts allowed; None if nothing.
    chapters: the requests, where there are several.
    **chapter: the attributes of the `Chapter`, where there is one.

  Returns:
    The path of `report.html`.

  Raises:
    ValueError: see `summarize`.
  """
  chapters = chapters or [Chapter(**chapter)]
  parts = [(one.name, *_sections(one)) for one in chapters]
  verdicts = [f"{name}: {said}" if name else said for name, said, _ in parts]
  page = blocks.Page(
    title,
    [
      blocks.Section(
        "Verdict", [blocks.Text(said, lead=True) for said in verdicts]
      ),
      *(section for _, _, sections in parts for section in sections),
      blocks.Section("Certificate", _certificate(certificate)),
      blocks.Section(
        "What this does not prove", [blocks.Items(list(not_proven))]
      ),
      blocks.Section("How to reproduce", _reproduce(config)),
    ],
  )
  texts = {"report.md": as_markdown(page), "report.html": as_html(page)}
  directory = Path(directory)
  for name, text in texts.items():
    files.replace(directory / name, text.encode())
  return directory / "report.html"
