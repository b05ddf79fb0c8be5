"""BUILD is the architecture: every import is checked against it.

BUILD is evaluated with stub rules (Starlark is valid Python here) and every
Python file is parsed; nothing is imported.
"""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Each item of the library: its layer, and the highest layer that it may import.
# Items of one layer may import each other; no cycles anywhere.
LAYERS = {
  "files": (0, 0),
  "tree": (0, 0),
  "transform": (1, 1),
  "model": (1, 1),
  "loss": (2, 2),
  "objective": (2, 2),
  "view": (2, 2),
  "batch": (2, 2),
  "loop": (2, 2),
  "across": (2, 2),
  "processes": (2, 2),
  "descent": (2, 2),
  "language": (2, 2),
  "relabel": (2, 2),
  "sensitivity": (2, 2),
  "sharding": (2, 2),
  "until": (2, 2),
  "attack": (2, 2),
  "certify": (2, 2),
  "curvature": (2, 2),
  "clients": (3, 2),
  "nn": (4, 2),
  "data": (4, 1),
  "methods": (4, 3),
  "audit": (5, 2),
  "checkpoint": (6, 5),
  "report": (6, 5),
  "junlearn": (6, 2),  # the names that `import junlearn` offers
  "experiments": (7, 6),
  "tests": (8, 7),
}

# Distributions whose name is not that of their package.
DISTRIBUTIONS = {
  "PIL": "pillow",
  "absl": "absl_py",
  "orbax": "orbax_checkpoint",
  "sklearn": "scikit_learn",
}


@functools.cache
def python_files():
  """Paths of all Python files, relative to the repository."""
  return [
    path.relative_to(ROOT).as_posix()
    for folder in ("junlearn", "experiments", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "__pycache__" not in path.parts
  ]


def module_name(file):
  return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def modules():
  return {module_name(file): file for file in python_files()}


@functools.cache
def parsed(file):
  return ast.parse((ROOT / file).read_text(encoding="utf-8"), file)


def imported_names(file):
  """Dotted names that a file imports, or starts as `python -m` in a test."""
  for node in ast.walk(parsed(file)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      folders = pathlib.PurePath(file).parts[: -node.level or None]
      base = ".".join((*(folders if node.level else ()), node.module or ""))
      base = base.removesuffix(".")
      for alias in node.names:
        full = f"{base}.{alias.name}"
        yield full if full in modules() else base
    elif (
      file.startswith("tests/")
      and isinstance(node, ast.Constant)
      and isinstance(node.value, str)
      and node.value.startswith("experiments.")
    ):
      main = f"{node.value}.__main__"
      name = main if main in modules() else node.value
      if name in modules():
        yield name


def dependencies(file):
  """Files of the repository and distributions that a file needs."""
  inside, outside = set(), set()
  for name in imported_names(file):
    top = name.split(".")[0]
    if name in modules():
      inside.add(modules()[name])
    elif top in LAYERS:
      raise AssertionError(f"{file} imports {name}, which does not exist")
    elif top not in sys.stdlib_module_names:
      outside.add(DISTRIBUTIONS.get(top, top))
  if file.endswith("_test.py"):  # pytest loads these by itself
    for folder in pathlib.PurePath(file).parents:
      conftest = (folder / "conftest.py").as_posix()
      if conftest in python_files():
        inside.add(conftest)
    outside.add("pytest")
  return inside, outside


def item(file):
  """The key of `LAYERS` that a file belongs to."""
  name = module_name(file).split(".")
  return name[1] if name[0] == "junlearn" and len(name) > 1 else name[0]


def layer(file):
  return LAYERS[item(file)][0]


@functools.cache
def rules():
  """Rules of BUILD by label: `(kind, attributes)`."""
  found = {}

  def rule(kind):
    def declare(**attributes):
      assert attributes["name"] not in found
      found[attributes["name"]] = (kind, attributes)

    return declare

  stubs = {k: rule(k) for k in ("py_library", "py_binary", "py_test")}
  ignored = ("load", "package", "exports_files", "licenses")
  stubs |= dict.fromkeys(ignored, lambda *_, **__: None)
  stubs["glob"] = lambda *_, **__: []
  source = (ROOT / "BUILD").read_text(encoding="utf-8")
  exec(compile(source, "BUILD", "exec"), stubs)
  return found


def owned(label):
  """The files of a rule, without the runner that all tests share."""
  kind, attributes = rules()[label]
  runner = {attributes.get("main")} if kind == "py_test" else set()
  return set(attributes["srcs"]) - runner


@functools.cache
def owner():
  """The rule of each file."""
  return {file: label for label in rules() for file in owned(label)}


def test_every_file_is_in_exactly_one_rule():
  listed = [file for label in rules() for file in owned(label)]
  assert sorted(listed) == sorted(python_files())


def test_tests_are_tests():
  for label, (kind, attributes) in rules().items():
    is_test = label.endswith("_test")
    assert (kind == "py_test") == is_test, label
    if is_test:
      assert owned(label) == {f"{label}.py"}
      assert attributes["args"] == [f"{label}.py"]
    elif label.startswith("tests/"):
      assert attributes["testonly"], label


def test_data_files_exist():
  for label, (_, attributes) in rules().items():
    for file in attributes.get("data", []):
      assert (ROOT / file).is_file(), f"{label}: {file}"


def test_declared_deps_are_the_imports():
  wrong = {}
  for label, (_, attributes) in rules().items():
    needed = set()
    for file in owned(label):
      inside, outside = dependencies(file)
      needed |= {f":{owner()[dependency]}" for dependency in inside}
      needed |= {f"@pypi//{distribution}" for distribution in outside}
    needed.discard(f":{label}")
    declared = attributes.get("deps", [])
    assert len(declared) == len(set(declared)), label
    if set(declared) != needed:
      wrong[label] = {
        "missing": sorted(needed - set(declared)),
        "unused": sorted(set(declared) - needed),
      }
  assert not wrong


def test_imports_respect_the_layers():
  for file in python_files():
    own, highest = LAYERS[item(file)]
    for dependency in dependencies(file)[0]:
      allowed = layer(dependency) <= highest or item(dependency) == item(file)
      assert allowed, f"{file} (layer {own}) imports {dependency}"


def test_imports_have_no_cycle():
  graphlib.TopologicalSorter(
    {file: dependencies(file)[0] for file in python_files()}
  ).prepare()


def test_only_known_items_are_in_the_library():
  assert {item(file) for file in python_files()} == set(LAYERS)


def test_the_library_needs_only_what_it_declares():
  """Distributions imported by junlearn and experiments, against pyproject."""
  with (ROOT / "pyproject.toml").open("rb") as file:
    project = tomllib.load(file)["project"]
  declared = set()
  extras = project["optional-dependencies"]
  for requirement in [*project["dependencies"], *extras["oracles"]]:
    name = requirement.split(">")[0].split("[")[0].strip()
    declared.add(name.lower().replace("-", "_"))
  needed = set()
  for file in python_files():
    if not file.startswith("tests/"):
      needed |= dependencies(file)[1]
  assert needed <= declared


def public(file):
  """Public functions and classes of a module, and public methods of those."""
  for node in parsed(file).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      if node.name.startswith("_"):
        continue
      yield node.name, node
      if isinstance(node, ast.ClassDef):
        for member in node.body:
          if isinstance(member, ast.FunctionDef) and member.name[0] != "_":
            yield f"{node.name}.{member.name}", member


@pytest.mark.parametrize(
  "file", [file for file in python_files() if file.startswith("junlearn/")]
)
def test_is_documented_and_short(file):
  assert ast.get_docstring(parsed(file))
  for name, node in public(file):
    assert ast.get_docstring(node), f"{file}: {name} has no docstring"
  assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
  ("name", "forbidden"),
  [
    ("junlearn", ("tensorflow", "torch", "junlearn.data", "junlearn.nn")),
    ("experiments.classification", ("tensorflow", "torch", "tests")),
    (
      "junlearn.methods",
      ("tensorflow", "junlearn.nn", "junlearn.data", "junlearn.audit"),
    ),
  ],
)
def test_importing_stays_light(name, forbidden):
  code = f"import sys, {name}; print(*sys.modules)"
  loaded = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert name in loaded
  assert not set(loaded) & set(forbidden)
