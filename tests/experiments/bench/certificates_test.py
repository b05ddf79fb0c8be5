"""The benchmark of certificates runs as a user starts it."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]


def start(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.bench.certificates", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_the_tables_are_written(tmp_path):
  out = tmp_path / "certificates.md"
  small = ("--draws=12", "--programs=3", "--releases=50000", "--same=1")
  done = start(*small, f"--out={out}")
  assert done.returncode == 0, done.stderr
  text = out.read_text()
  rows = [line for line in text.splitlines() if line.startswith("| ")]
  drawn = [
    int(row.split("|")[2])
    for row in rows
    if row.startswith(("| one model |", "| stacked clients", "| consensus"))
    and row.count("|") == 9
    and row.split("|")[2].strip().isdecimal()
  ]
  assert 0 < sum(drawn) <= 12
  assert "failed" not in text
  assert text.count("passed") >= 8 + 10
  assert "| 8 | 1.0 | 1e-05 | 1.0000 | 3.1858 |" in text
  assert "The seed was 0." in text
  assert "- commit: " in text


def test_an_argument_that_is_not_known_is_refused():
  done = start("seed")
  assert done.returncode == 1
  assert "unexpected argument 'seed'" in done.stderr
