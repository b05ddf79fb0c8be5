"""The pages in docs say what is so: programs, names, flags and links."""

import functools
import importlib.util
import itertools
import re
import types
import typing

import numpy as np
import optax
import pytest

from experiments.classification import methods as of_images
from junlearn.certify.calibrate import classical_sigma
from junlearn.methods import card
from junlearn.transform import Request
from tests import battery_test as battery
from tests import knowledge_test as knowledge
from tests import pages, problems, rows
from tests.pages import DOCS, README, ROOT

EVERY = [README, *DOCS]
RESULTS = ROOT / "experiments" / "results"
every_page = pytest.mark.parametrize("page", EVERY, ids=lambda page: page.stem)


def page(name):
  return ROOT / "docs" / f"{name}.md"


def test_getting_started():
  records, models, stages = pages.printed(page("getting_started"))
  assert records == ["records", "50", "100"]  # of 150 flowers of three kinds
  assert models == ["models", "4"]
  assert stages == ["stages", "push", "mend"]


@pytest.mark.slow
def test_language():
  found = {
    (who, part): float(p) for who, part, p in pages.printed(page("language"))
  }
  assert len(found) == 6
  # The facts lose their probability, the others keep most of it.
  assert found["original", "forget"] > 0.9
  assert found["unlearned", "forget"] < 0.2
  assert found["unlearned", "retain"] > found["unlearned", "forget"] + 0.4


def test_certificates():
  (distance, sigma), *problems = pages.printed(page("certificates"))
  assert not any(problems)
  assert 0 < float(distance) <= 1e-6
  # The classical formula is above the exact one, at a distance of 2e-6.
  classical = classical_sigma(1.0, 1e-5, 2e-6)
  assert classical / 2 < float(sigma) < classical


def test_every_program_is_run_by_a_test():
  run = {"README", "getting_started", "language", "certificates"}
  run |= {"add_a_method"}
  assert {page.stem for page in EVERY if pages.blocks(page)} == run


@pytest.fixture
def of_the_page(monkeypatch):
  """The method of "Add a method", in its tables; the page's row for images."""
  code, row, budget, image_row = pages.blocks(page("add_a_method"))
  module = types.ModuleType("max_entropy")
  exec(compile(code, "add_a_method.md", "exec"), module.__dict__)

  def entry(lines, scope):
    ((name, value),) = eval(
      f"{{{lines}}}", {"max_entropy": module, **scope}
    ).items()
    assert name == "max_entropy"
    return value

  for table in (rows.OF_CLASSES, rows.DESCENTS, rows.METHODS):
    monkeypatch.setitem(table, "max_entropy", entry(row, {}))
  monkeypatch.setitem(rows.BUDGET, "max_entropy", entry(budget, {}))
  return module, entry(image_row, vars(of_images))


def laws_like(name):
  """The battery's laws that hold for a method, with their other parameters."""
  for law in [*vars(battery).values(), *vars(knowledge).values()]:
    marks = getattr(law, "pytestmark", [])
    parameters = dict(mark.args for mark in marks if mark.name == "parametrize")
    if name in parameters.pop("name", ()):
      for values in itertools.product(*parameters.values()):
        yield law, dict(zip(parameters, values, strict=True))


def test_the_added_method_obeys_the_laws_of_others(of_the_page):
  laws = [*laws_like("grad_difference")]
  assert len(laws) >= 10
  for law, parameters in laws:
    law(name="max_entropy", **parameters)


def test_the_added_card_has_the_words_of_others(of_the_page):
  module, _ = of_the_page
  assert module.CARD.modality in typing.get_args(card.Modality)
  assert set(module.CARD.reads) <= set(Request._fields)


def test_the_added_method_has_a_loss_in_closed_form(of_the_page):
  module, _ = of_the_page
  even, sure = module.surplus(np.asarray([[2.0, 2, 2], [90, 0, 0]]), None)
  np.testing.assert_allclose((even, sure), (0, np.log(3)), atol=1e-6)


def test_the_added_method_fits_the_experiment(of_the_page):
  module, method = of_the_page
  assert method.needs_retain == module.CARD.needs_retain
  model = problems.blobs().model
  method.make(model, optax.sgd(0.1), num_classes=3, num_steps=1, batch_size=2)


@every_page
def test_included_files_exist(page):
  for path in pages.INCLUDED.findall(page.read_text()):
    assert (ROOT / path.partition(":")[0]).is_file(), path


@every_page
def test_links_lead_somewhere(page):
  for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
    made = link.startswith(("http", "api/"))
    assert made or (page.parent / link).exists(), link


def test_every_page_is_in_the_navigation():
  listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
  assert {page.name for page in DOCS} <= set(listed)


@functools.cache
def resolve(name):
  """Whether a dotted name of the library stands for something."""
  parts = name.split(".")
  for cut in range(len(parts), 0, -1):
    try:
      found = importlib.import_module(".".join(["junlearn", *parts[:cut]]))
    except ModuleNotFoundError:
      continue
    for attribute in parts[cut:]:
      found = getattr(found, attribute, None)
    return found is not None
  return False


@every_page
def test_names_exist(page):
  """Dotted names in backquotes whose first word is one of the library's."""
  named = re.findall(
    r"`(?:junlearn\.|ju\.)?([a-z]\w*(?:\.\w+)+)[`(]", page.read_text()
  )
  rooms = {path.stem for path in (ROOT / "junlearn").iterdir()}
  suffixes = ("md", "py", "html", "toml", "json", "jsonl", "yml")
  for name in named:
    first, last = name.split(".")[0], name.split(".")[-1]
    if first in rooms and last not in suffixes:
      assert resolve(name), name


@functools.cache
def sources():
  files = sorted((ROOT / "experiments").rglob("*.py"))
  return "\n".join(file.read_text() for file in files)


@every_page
def test_flags_and_programs_exist(page):
  for command in pages.blocks(page, "sh"):
    for module in re.findall(r"-m (experiments\.[\w.]+)", command):
      assert importlib.util.find_spec(module), module
    for flag in re.findall(r" --(?:no)?(\w+)", command):
      known = flag in ("flagfile", "check") or flag in sources()
      assert known, flag


@every_page
def test_is_american_and_short(page):
  text = page.read_text()
  british = re.findall(
    r"\b\w*(?:colour|neighbour|behaviour|[mt]isation|[ltm]ise[sd]?\b)", text
  )
  assert set(british) <= {
    "promise",
    "promises",
    "promised",
    "precise",
    "otherwise",
  }
  assert len(text.splitlines()) <= 220


def test_results_are_listed():
  index = (RESULTS / "README.md").read_text()
  found = {path.name for path in RESULTS.iterdir()} - {"README.md"}
  assert set(re.findall(r"\]\((\S+?)\)", index)) == found
  for program in re.findall(r"\| `([\w.]+)[^`|]*` \| \S+ \|$", index, re.M):
    assert importlib.util.find_spec(f"experiments.{program}"), program
