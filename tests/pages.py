"""The pages of the documentation, and what their programs print."""

import functools
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
INCLUDED = re.compile(r'^--8<-- "(.*)"$', re.M)


def blocks(page, language="python"):
  """The code of a page, without what it includes from files."""
  found = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)
  return [code for code in found if not INCLUDED.search(code)]


@functools.cache
def printed(page):
  """What the programs of a page print, run as one: words by line."""
  done = subprocess.run(
    [sys.executable, "-c", "\n".join(blocks(page))],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr
  return [line.split() for line in done.stdout.splitlines()]
