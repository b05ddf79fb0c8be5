"""What mkdocs makes of the code: tables, API pages and the results' pages.

A comment in a page stands for what is made here:

    <!-- methods -->              the cards of all methods
    <!-- metrics MODULE:NAME -->  what a modality measures
    <!-- limits MODULE:NAME -->   what it does not prove
    <!-- packages -->             who imports whom, from BUILD
"""

import ast
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_config(config: Any) -> Any:
  """Adds the API to the navigation; experiments are read where they lie."""
  sys.path.insert(0, str(ROOT))
  config.nav.append({"API": [{n: f"api/{n}.md"} for n, _ in packages()]})
  return config


def on_files(files: Files, config: Any) -> Files:
  """Adds the API, and what lies outside of docs."""
  for name, modules in packages():
    parts = [f"# {name}", *(f"::: {module}" for module in modules)]
    page = File.generated(config, f"api/{name}.md", content="\n\n".join(parts))
    files.append(page)
  results = (ROOT / "experiments" / "results").iterdir()
  outside = [f"results/{path.name}" for path in sorted(results)]
  for folder, names in (("experiments", outside), ("", ["CHANGELOG.md"])):
    for name in names:
      place = str(ROOT / folder), config.site_dir, config.use_directory_urls
      files.append(File(name, *place))
  return files


def on_page_markdown(markdown: str, **_: Any) -> str:
  """Fills the comments; links to results point into the site."""
  markdown = markdown.replace("](../experiments/results/", "](results/")
  markdown = markdown.replace("](../CHANGELOG.md", "](CHANGELOG.md")
  for kind, make in TABLES.items():
    markdown = re.sub(
      rf"<!-- {kind} ?(\S*) -->",
      lambda found, make=make: "\n".join(make(*filter(None, found.groups()))),
      markdown,
    )
  left = re.search(r"<!-- (?!--8<--)\w.*?-->", markdown)
  if left:
    raise ValueError(f"{left[0]} is no table; there are {', '.join(TABLES)}.")
  return markdown


def packages() -> Iterator[tuple[str, list[str]]]:
  """The packages of the library, each with its public modules."""
  for init in sorted((ROOT / "junlearn").rglob("__init__.py")):
    files = sorted(init.parent.glob("*.py"))
    name = ".".join(init.parent.relative_to(ROOT).parts)
    stems = [file.stem for file in files if not file.stem.startswith("_")]
    yield name, [name, *(f"{name}.{stem}" for stem in stems)]


def of_methods() -> Iterator[str]:
  """A row a method, from its card."""
  head = "method", "paper", "for", "reads", "without retained data"
  yield from _head(*head, "cost", "guarantee")
  for name, card in pkgutil.resolve_name("junlearn.methods:cards")().items():
    link = f"[`{name}`](api/junlearn.methods.md#junlearn.methods.{name})"
    paper = re.sub(
      r"arXiv (\d{4}\.\d{5})",
      r"[arXiv \1](https://arxiv.org/abs/\1)",
      card.paper,
    )
    without = "no" if card.needs_retain else "yes"
    reads = ", ".join(f"`{part}`" for part in card.reads)
    yield _row(
      link, paper, card.modality, reads, without, card.cost, card.guarantee
    )


def of_metrics(name: str) -> Iterator[str]:
  """A row a metric."""
  yield from _head("metric", "what it is", "stronger forgetting")
  moves = {-1: "lowers it", 0: "", 1: "raises it"}
  for metric in pkgutil.resolve_name(name):
    yield _row(metric.label, metric.help, moves[metric.forgetting])


def of_limits(name: str) -> Iterator[str]:
  """A point a limit."""
  return (f"- {limit}" for limit in pkgutil.resolve_name(name))


def of_packages() -> Iterator[str]:
  """A row a package: what it says of itself, and what it imports."""
  yield from _head("package", "what it is", "imports")
  for node in ast.parse((ROOT / "BUILD").read_text(encoding="utf-8")).body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "PACKAGES":
      for name, (imported, _) in ast.literal_eval(node.value).items():
        parts = [f"`{part.removeprefix('junlearn/')}`" for part in imported]
        yield _row(f"`{name}`", _says(name), ", ".join(parts))


TABLES = {
  "methods": of_methods,
  "metrics": of_metrics,
  "limits": of_limits,
  "packages": of_packages,
}


def _says(package: str) -> str:
  """The first line of the docstring of a package, or of its only module."""
  files = (f"{package}/__init__.py", f"{package}.py")
  for file in files:
    if (ROOT / file).exists():
      said = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
      return said.partition("\n")[0]
  return "the core: requests, transforms, models, objectives, views, loops"


def _head(*cells: str) -> tuple[str, str]:
  return _row(*cells), _row(*["---"] * len(cells))


def _row(*cells: str) -> str:
  return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
