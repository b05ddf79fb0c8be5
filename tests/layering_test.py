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

# Distributions whose name is not that of their package.
DISTRIBUTIONS = {
  "PIL": "pillow",
  "absl": "absl_py",
  "orbax": "orbax_checkpoint",
  "sklearn": "scikit_learn",
}


FOLDERS = ("junlearn", "experiments", "tests")


@functools.cache
def python_files():
  """Paths of all Python files, relative to the repository."""
  return [
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
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
  """Dotted names that a file imports, or has as a word by itself."""
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
      isinstance(node, ast.Constant)
      and isinstance(node.value, str)
      and node.value.startswith(("experiments.", "junlearn."))
    ):  # what `importlib` or `python -m` may be given
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
    elif top in FOLDERS:
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


@functools.cache
def rules():
  """Rules of BUILD by label: `(kind, attributes)`, in their order."""
  found = {}

  def rule(kind):
    def declare(**attributes):
      assert attributes["name"] not in found
      found[attributes["name"]] = (kind, attributes)

    return declare

  def glob(patterns, *, exclude=(), allow_empty=False):
    """Files as Bazel finds them, where a star is no part of a path."""
    named = {
      path.relative_to(ROOT).as_posix()
      for pattern in patterns
      for path in ROOT.glob(pattern)
      if "__pycache__" not in path.parts
    }
    skipped = {
      path.relative_to(ROOT).as_posix()
      for pattern in exclude
      for path in ROOT.glob(pattern)
    }
    assert allow_empty or named - skipped, patterns
    return sorted(named - skipped)

  stubs = {k: rule(k) for k in ("py_library", "py_binary", "py_test")}
  ignored = ("load", "package", "exports_files", "licenses")
  stubs |= dict.fromkeys(ignored, lambda *_, **__: None)
  stubs["glob"] = glob
  source = (ROOT / "BUILD").read_text(encoding="utf-8")
  exec(compile(source, "BUILD", "exec"), stubs)
  return found


def packages():
  """The rules that own files: all but binaries."""
  return {
    label: attributes
    for label, (kind, attributes) in rules().items()
    if kind != "py_binary"
  }


def owned(label):
  """The files of a package, without the runner that all tests share."""
  runner = {packages()[label].get("main")}
  return [file for file in packages()[label]["srcs"] if file not in runner]


@functools.cache
def owner():
  """The package of each file."""
  return {file: label for label in packages() for file in owned(label)}


@functools.cache
def needed(label):
  """Packages and distributions that the files of a package import."""
  inside, outside = set(), set()
  for file in owned(label):
    files, distributions = dependencies(file)
    inside |= {owner()[dependency] for dependency in files}
    outside |= distributions
  return inside - {label}, outside


def declared(label):
  """Packages and distributions that BUILD says a package imports."""
  deps = packages()[label]["deps"]
  assert len(deps) == len(set(deps)), label
  inside = {dep[1:] for dep in deps if dep.startswith(":")}
  outside = {d.removeprefix("@pypi//") for d in deps if d.startswith("@")}
  return inside, outside


def is_modality(label):
  """Whether a package of experiments is one of a modality."""
  return (
    label.count("/") == 1
    and label.startswith("experiments/")
    and (
      label.split("/")[1]
      not in ("run", "release", "verify_certificate", "claims", "bench")
    )
  )


def test_build_is_one_page():
  source = (ROOT / "BUILD").read_text(encoding="utf-8")
  assert len(source.splitlines()) < 300


def test_every_file_is_in_exactly_one_package():
  listed = [file for label in packages() for file in owned(label)]
  assert sorted(listed) == sorted(python_files())


@pytest.mark.parametrize("label", [*packages()])
def test_declared_deps_are_the_imports(label):
  inside, outside = needed(label)
  if label.endswith("_test"):
    inside |= {"tests/support"}  # conftest and the runner
    assert outside <= declared(label)[1]
    assert inside <= declared(label)[0]
  else:
    assert (inside, outside) == declared(label)


def test_packages_stand_below_what_they_import():
  order = [*packages()]
  for label in order:
    for dependency in needed(label)[0]:
      assert order.index(dependency) < order.index(label), (label, dependency)


def test_every_program_is_a_binary():
  programs = {
    file
    for file in python_files()
    if file.startswith("experiments/") and file.endswith("/__main__.py")
  }
  binaries = {
    attributes["main"]
    for kind, attributes in rules().values()
    if kind == "py_binary"
  }
  assert binaries == programs


def test_imports_have_no_cycle():
  graphlib.TopologicalSorter(
    {file: dependencies(file)[0] for file in python_files()}
  ).prepare()


def test_what_experiments_share_knows_no_modality():
  for label in ("experiments/run", "experiments/release"):
    for dependency in needed(label)[0]:
      assert not is_modality(dependency), (label, dependency)
      room = dependency.split("/")[1]
      assert room not in ("nn", "data", "methods", "audit"), (label, dependency)


def test_a_modality_imports_no_other():
  modalities = [label for label in packages() if is_modality(label)]
  assert len(modalities) >= 4
  for label in modalities:
    assert not any(map(is_modality, needed(label)[0])), label


def test_claims_import_one_modality():
  claims = [
    label for label in packages() if label.startswith("experiments/claims/")
  ]
  assert len(claims) >= 5
  for label in claims:
    assert sum(map(is_modality, needed(label)[0])) <= 1, label


def test_nothing_imports_claims_or_bench():
  for label in packages():
    if label.startswith("tests/"):
      continue
    for dependency in needed(label)[0]:
      folder = "/".join(dependency.split("/")[:2])
      if folder in ("experiments/claims", "experiments/bench"):
        assert label.startswith(folder), (label, dependency)


def test_methods_see_apply_functions_and_pytrees():
  inside, _ = needed("junlearn/methods")
  rooms = {label.split("/")[1] for label in inside}
  assert not rooms & {"nn", "data", "audit", "report"}


def test_audits_know_no_methods():
  for label in packages():
    if label.startswith("junlearn/audit"):
      assert "junlearn/methods" not in needed(label)[0]


def test_the_library_needs_only_what_it_declares():
  """Distributions imported by junlearn and experiments, against pyproject."""
  with (ROOT / "pyproject.toml").open("rb") as file:
    project = tomllib.load(file)["project"]
  named = set()
  extras = project["optional-dependencies"]
  for requirement in [*project["dependencies"], *extras["oracles"]]:
    name = requirement.split(">")[0].split("[")[0].strip()
    named.add(name.lower().replace("-", "_"))
  for file in python_files():
    if not file.startswith("tests/"):
      assert dependencies(file)[1] <= named, file


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
