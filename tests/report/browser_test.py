"""The page in a real browser, as its readers see it."""

import html.parser
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib import image

from junlearn import report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
  BROWSER is None, reason="chromium is not installed (CI installs it)"
)


def browse(profile, url, *options):
  command = [
    BROWSER,
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--user-data-dir={profile}",
    *options,
    url,
  ]
  done = subprocess.run(
    command, capture_output=True, text=True, timeout=60, check=True
  )
  return done.stdout


class Reader(html.parser.HTMLParser):
  """What is said, and how many rows the tables have."""

  def __init__(self, dom):
    super().__init__()
    self.words, self.rows = [], 0
    self.feed(dom)

  def handle_starttag(self, tag, attrs):
    self.rows += tag == "tr"

  def handle_data(self, data):
    self.words.append(data)


def test_dom_holds_the_verdict_and_all_rows(tmp_path, example):
  page = report.write(tmp_path / "report", **example)
  dom = browse(tmp_path / "profile", page.as_uri(), "--dump-dom")
  reader = Reader(dom)
  summary = report.summarize(example["rows"], example["metrics"])
  assert report.verdict(summary) in "".join(reader.words)
  closeness, times = 1 + 9, 1 + 8
  behind_figures = (1 + 8) + (1 + 9) + (1 + 9) + (1 + 7 * 3 + 1)
  assert reader.rows == closeness + times + behind_figures


@pytest.mark.parametrize("width", [1200, 500])
def test_page_is_painted(tmp_path, example, width):
  page = report.write(tmp_path / "report", **example)
  picture = tmp_path / "page.png"
  browse(
    tmp_path / "profile",
    page.as_uri(),
    f"--screenshot={picture}",
    f"--window-size={width},3000",
    "--hide-scrollbars",
  )
  pixels = image.imread(picture)
  assert pixels.shape[:2] == (3000, width)
  ink = (pixels[..., :3].mean(-1) < 0.9).mean()
  assert 0.01 < ink < 0.5
  # Nothing but wide tables, which scroll inside, reaches the right margin.
  assert np.all(pixels[:, -8:, :3] == 1.0)
