"""The benchmark of clients runs as a user starts it."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[3]


def start(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.bench.clients", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_the_table_is_written(tmp_path):
  out = tmp_path / "clients.md"
  small = ("--clients=3", "--hidden=2", "--rounds=1", "--repeats=1")
  done = start(*small, f"--out={out}")
  assert done.returncode == 0, done.stderr
  rows = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in out.read_text().splitlines()
    if line.startswith("|")
  ][2:]
  assert [row[1] for row in rows] == ["3"] * 4
  assert {row[2] for row in rows} == {str(64 * 2 + 2 + 2 * 10 + 10)}
  assert all(float(cell) >= 0 for row in rows for cell in row[3:])
  assert "- commit: " in out.read_text()
  assert "experiments.bench.clients --clients=3 " in out.read_text()


def test_bad_numbers_are_refused():
  done = start("--clients=8,two")
  assert done.returncode == 1
  assert "--clients is 8,two; it must be numbers" in done.stderr
