import errno
import hashlib
import html
import html.parser
import math
import os
import re

import numpy as np
import pytest

from junlearn import report
from junlearn.report import cost
from junlearn.report.palette import Palette
from junlearn.report.summary import PerSeed

HOSTILE = '$\\bad$<script>alert("1")</script> & <img src=x onerror=y> | `z`'


class Structure(html.parser.HTMLParser):
  """Tags with their attributes, and whether they nest properly."""

  VOID = ("meta", "link", "img", "br")

  def __init__(self, text):
    super().__init__()
    self.tags, self.open = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def assert_sound(text):
  """Well-nested, self-contained, no script, ids unique."""
  structure = Structure(text)
  assert structure.open == []
  names = {tag for tag, _ in structure.tags}
  assert not names & {"script", "link", "img", "iframe", "object", "base"}
  for _, attributes in structure.tags:
    assert not any(name.startswith("on") for name in attributes)
    for name in ("src", "href", "xlink:href", "action", "data"):
      assert attributes.get(name, "#").startswith("#")
  ids = [a["id"] for _, a in structure.tags if "id" in a]
  assert len(ids) == len(set(ids))
  targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
  assert {a or b for a, b in targets} <= set(ids)
  addresses = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
  assert not re.search(r"https?:|@import|url\((?!#)", addresses)
  return structure


def written(directory, arguments):
  path = report.write(directory, **arguments)
  texts = [
    path.read_text("utf-8"),
    (directory / "report.md").read_text("utf-8"),
  ]
  assert sorted(p.name for p in directory.iterdir()) == [
    "report.html",
    "report.md",
  ]
  return texts


def test_page_is_sound_and_complete(tmp_path, example):
  text, markdown = written(tmp_path, example)
  structure = assert_sound(text)
  count = [tag for tag, _ in structure.tags].count
  assert count("main") == count("h1") == 1
  assert count("details") == 4
  scopes = [a.get("scope") for tag, a in structure.tags if tag == "th"]
  assert set(scopes) == {"col", "row"}
  pictures = [a for tag, a in structure.tags if tag == "svg" and "role" in a]
  assert len(pictures) == 4 + 2 + 7 + 2
  assert all(a["aria-label"] for a in pictures)
  verdict = report.verdict(
    report.summarize(example["rows"], example["metrics"])
  )
  assert verdict.replace("'", "&#x27;") in text
  for words in (
    "Forget 5,000 of 50,000 training records",
    "No certificate:",
    "That no other attack would find",
    "python -m experiments.classification",
    "5559fb7",
  ):
    assert words in text
    assert words in markdown
  assert "| amun | **0.5 ± 0.2** | **94.5 ± 0.4** (= 0.6) |" in markdown


def test_same_input_same_bytes(tmp_path, example):
  first = written(tmp_path / "a", example)
  again = written(tmp_path / "b", {**example, "figures": example["figures"]})
  assert first == again


def test_hostile_strings_are_shown_not_run(tmp_path, example):
  for row in example["rows"]:
    if row["method"] == "amun":
      row["method"] = HOSTILE
  roc = report.roc(
    [report.Roc(HOSTILE, [0, 1], [0, 1])], title=HOSTILE, caption=HOSTILE
  )
  metric = report.Metric("attack_auc", HOSTILE, HOSTILE, help=HOSTILE)
  text, markdown = written(
    tmp_path,
    {
      **example,
      "title": HOSTILE,
      "verdict": HOSTILE,
      "request": report.Deletion([HOSTILE, 3], 10, HOSTILE, HOSTILE),
      "metrics": [metric],
      "figures": [roc],
      "not_proven": [HOSTILE],
      "config": {"command": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}},
      "certificate": {HOSTILE: HOSTILE},
    },
  )
  assert_sound(text)
  assert "&lt;script&gt;alert" in text
  prose = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
  assert "<" not in prose
  table = [line for line in markdown.splitlines() if line.startswith("| ")]
  assert len(table) > 10
  widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
  assert widths == {3, 4, 6, 8}  # no cell was split by a stray bar


def test_figures_share_one_stroke_per_method():
  palette = Palette(["a", "b"])
  later = palette["c"]
  assert palette["c"] is later
  many = [palette[str(i)] for i in range(18)]
  assert len({*many, palette["a"], palette["b"], later}) == 21
  for reference in ("original", "retrain"):
    red, green, blue = re.findall("..", palette[reference].color[1:])
    assert red == green == blue


def test_numbers_behind_the_figures():
  palette = Palette()
  curve = report.Roc("m", [0, 0.1, 1], [0, 0.5, 1])
  (row,) = report.roc([curve])(palette).numbers.rows
  # Trapezoids: 0.1 * 0.25 + 0.9 * 0.75 = 0.7.
  assert [cell.text for cell in row] == [
    "m",
    "0.700",
    "0.000",
    "0.000",
    "0.500",
  ]
  values = [
    report.Values("retrain", [0.0, 1.0]),
    report.Values("m", [0.0, 0.0, math.nan]),
  ]
  drawing = report.distributions(values, x_label="p")(palette)
  assert [row[-1].text for row in drawing.numbers.rows] == ["0.000", "0.500"]


def test_empty_inputs_do_not_crash(tmp_path, example):
  figures = [
    report.roc([]),
    report.roc([report.Roc("m", [], [])]),
    report.distributions([], x_label="p"),
    report.distributions([report.Values("m", [math.nan])], x_label="p"),
    report.trajectories([report.Curve("m", [], [], [])]),
  ]
  nothing = {"figures": figures, "rows": [], "not_proven": [], "config": {}}
  text, _ = written(tmp_path, {**example, **nothing})
  assert_sound(text)
  broken = [
    {"method": "retrain", "seed": 0, "metrics": {"attack_auc": math.nan}},
    {"method": "m", "seed": 0, "metrics": {"forget_accuracy": None}},
    {"method": "m", "seed": 1, "metrics": {"attack_auc": np.float32(0.5)}},
  ]
  text, markdown = written(tmp_path, {**example, "rows": broken})
  assert_sound(text)
  assert "| m | n/a | n/a |" in markdown
  assert "0.500 (1 of 2 seeds) (distance n/a)" in markdown


def test_one_seed_says_so(tmp_path, example):
  rows = [row for row in example["rows"] if row["seed"] == 0]
  text, markdown = written(tmp_path, {**example, "rows": rows})
  assert_sound(text)
  for words in ("no spread can be given", "One seed only"):
    assert words in text
    assert words in markdown
  closeness = markdown.split("## How close")[1].split("## Figures")[0]
  assert " ± 0" not in closeness


def test_failure_leaves_the_old_report(tmp_path, example, monkeypatch):
  before = written(tmp_path, example)

  def broken(palette):
    raise RuntimeError("no figure")

  with pytest.raises(RuntimeError, match="no figure"):
    report.write(tmp_path, **{**example, "title": "New", "figures": [broken]})
  assert written_already(tmp_path) == before

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="cannot be written: No space left"):
    report.write(tmp_path, **{**example, "title": "New"})
  assert written_already(tmp_path) == before


def written_already(directory):
  assert len(os.listdir(directory)) == 2  # no temporary file is left
  names = ("report.html", "report.md")
  return [(directory / name).read_text("utf-8") for name in names]


def test_request_digest_is_that_of_sort_and_sha256sum():
  request = report.Deletion([10, 9, 2], 100, "")
  assert request.digest == hashlib.sha256(b"10\n2\n9\n").hexdigest()
  assert request.abbreviated == "2, 9, 10"
  assert report.Deletion(range(99), 99, "").abbreviated.endswith("5, …, 97, 98")
  assert report.Deletion([], 0, "").abbreviated == "none"


def test_a_private_request_is_told_without_its_ids(tmp_path, example):
  ids = [31337, 27182818, "alice", 90210]
  request = report.Deletion(ids, 50000, "Drawn at random.")
  traces = [*map(str, ids), request.digest, "SHA-256"]

  def found(texts):
    return [
      [t for t in traces if re.search(rf"\b{t}\b", text)] for text in texts
    ]

  told = written(tmp_path, {**example, "request": request})
  assert found(told) == [traces, traces]
  private = request._replace(private=True)
  texts = written(tmp_path, {**example, "request": private})
  assert found(texts) == [[], []]
  for text in texts:
    plain = html.unescape(text).replace("\\", "")
    assert "Forget 4 of 50,000 training records" in plain
    assert "Drawn at random." in plain
    assert (
      "Their ids are left out here: whoever may know them finds them in the "
      "folder's `private/requests.json`."
    ) in plain


def test_certificate_is_listed(tmp_path, example):
  certificate = {"epsilon": 1.0, "bound": {"theorem": "2.1", "on": ["a", "b"]}}
  text, markdown = written(tmp_path, {**example, "certificate": certificate})
  assert "No certificate" not in text
  assert "- **bound.theorem**: 2.1" in markdown
  assert "- **bound.on**: a; b" in markdown


def test_times_and_speed_up():
  retrain, unlearn = PerSeed({0: 10.0, 1: 14.0}), PerSeed({1: 2.0, 2: 5.0})
  assert cost.speed_up(retrain, unlearn) == "7.0\N{MULTIPLICATION SIGN}"
  assert cost.speed_up(retrain, PerSeed({})) == "n/a"
  assert cost.speed_up(retrain, PerSeed({0: 0.0})) == "n/a"
  assert cost.duration(PerSeed({0: 0.0421})) == "42 ms"
  assert cost.duration(PerSeed({0: 59.0, 1: 61.0})) == "60.0 ± 1.4 s"
  assert cost.duration(PerSeed({0: 9000.0})) == "2.5 h"
  rows = [
    {
      "method": method,
      "seed": 0,
      "seconds": {work: seconds, "compile": 5.0},
      "peak_memory_bytes": 3 * 2**30,
    }
    for method, work, seconds in (
      ("retrain", "retrain", 95.0),
      ("m", "unlearn", 5.0),
    )
  ]
  last = [cell.text for cell in cost.cost_table(rows).rows[-1]]
  sign = "\N{MULTIPLICATION SIGN}"
  assert last[3:] == [f"19.0{sign}", f"10.0{sign}", "n/a", "3.0 GiB"]
