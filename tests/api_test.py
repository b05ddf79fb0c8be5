"""The names of the public surface: what `import junlearn` promises."""

import importlib
import inspect
import pkgutil
import types
from typing import get_type_hints

import jax
import pytest

import junlearn
from junlearn import descent

PACKAGES = sorted(
  ["junlearn"]
  + [
    info.name
    for info in pkgutil.walk_packages(junlearn.__path__, "junlearn.")
    if info.ispkg
  ]
)


@pytest.mark.parametrize("name", PACKAGES)
def test_no_function_hides_a_module(name):
  """`package.module` is the module, whatever the package exports."""
  package = importlib.import_module(name)
  for info in pkgutil.iter_modules(package.__path__):
    module = importlib.import_module(f"{name}.{info.name}")
    assert getattr(package, info.name) is module


def test_exports_are_the_modules_own():
  """No export of the top level hides a module of another name either."""
  for name, value in vars(junlearn).items():
    if isinstance(value, types.ModuleType) and not name.startswith("_"):
      assert value.__name__.rpartition(".")[2] == name


def test_members_communicate_over_the_axes_that_are_exported():
  members = junlearn.across.across(
    lambda x: jax.lax.psum(x, junlearn.across.AXES), collective=True
  )
  assert members(jax.numpy.arange(3.0)).tolist() == [3.0, 3.0, 3.0]


def test_the_options_of_descend_are_the_arguments_of_the_descent():
  """One list of options: what methods pass on is what the descent takes."""
  taken = inspect.signature(descent.gradient_descent).parameters
  keywords = {
    name for name, each in taken.items() if each.kind is each.KEYWORD_ONLY
  }
  assert set(get_type_hints(descent.DescentOptions)) == keywords
  assert set(get_type_hints(descent.DescendOptions)) == keywords | {"loop"}
  required = {
    n for n in keywords if taken[n].default is inspect.Parameter.empty
  }
  assert set(descent.DescentOptions.__required_keys__) == required
