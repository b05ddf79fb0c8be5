"""Flags that a recipe describes."""

import subprocess
import sys
from typing import Annotated, NamedTuple

import pytest
from absl import flags

from experiments.run import options
from experiments.run.options import Flag
from tests.experiments.driver import ROOT


class Recipe(NamedTuple):
  toy_epochs: Annotated[int, Flag("Epochs of the toy.", least=1)] = 40
  toy_rate: Annotated[float, Flag("Rate of the toy.", least=0.0)] = 0.1
  toy_l2: Annotated[float, Flag("Penalty of the toy.", above=0.0)] = 1.0
  toy_net: Annotated[str, Flag("Net.", choices=("cnn", "mlp"))] = "cnn"
  toy_fast: Annotated[bool, Flag("Whether it is fast.")] = False
  toy_bits: Annotated[tuple[int, ...], Flag("Bits of weights.")] = (8, 4)
  toy_words: Annotated[tuple[str, ...], Flag("Words.")] = ("a",)
  toy_class: Annotated[int | None, Flag("A class.")] = None
  toy_ids: Annotated[tuple[int, ...] | None, Flag("Ids.")] = None


RECIPE = options.define(Recipe, toy_rate=0.2)

# In a program of its own: other tests have a flag --workdir too.
PROGRAM = """
import sys
from absl import flags
from experiments.run import options
RUN = options.run("runs/toy", ("one", "two"), ["one"])
for words in sys.argv[1:]:
  for holder in RUN.flags.values():
    flags.FLAGS[holder.name].unparse()
  flags.FLAGS(["toy", *words.split()])
  try:
    print(tuple(RUN.value))
  except ValueError as error:
    print(error)
"""


@pytest.fixture
def given(request):
  """Parses the words, and forgets them."""
  names = [holder.name for holder in RECIPE.flags.values()]

  def parse(*words):
    for name in names:
      flags.FLAGS[name].unparse()
    flags.FLAGS(["test", *words])

  yield parse
  parse()


def test_defaults_are_those_of_the_recipe_or_the_program(given):
  given()
  assert RECIPE.value == Recipe(toy_rate=0.2, toy_words=["a"])


def test_every_kind_is_read_back(given):
  given(
    "--toy_epochs=3", "--toy_rate=0.5", "--toy_net=mlp", "--toy_fast",
    "--toy_bits=2,3", "--toy_words=x,y", "--toy_class=7", "--toy_ids=1,2",
  )  # fmt: skip
  assert RECIPE.value == Recipe(
    3, 0.5, 1.0, "mlp", True, (2, 3), ["x", "y"], 7, (1, 2)
  )


@pytest.mark.parametrize(
  ("word", "words"),
  [
    ("--toy_epochs=0", "toy_epochs=0"),
    ("--toy_epochs=x", "toy_epochs=x"),
    ("--toy_rate=-1", "toy_rate=-1"),
    ("--toy_net=vit", r"toy_net=vit.*<cnn\|mlp>"),
  ],
)
def test_bounds_are_kept(given, word, words):
  with pytest.raises(flags.Error, match=words):
    given(word)


@pytest.mark.parametrize(
  ("word", "words"),
  [
    ("--toy_rate=nan", "--toy_rate=nan; it must be finite and below 2"),
    ("--toy_rate=inf", "--toy_rate=inf; it must be finite and below 2"),
    ("--toy_epochs=99999999999", "--toy_epochs=99999999999; it must be finite"),
    ("--toy_l2=inf", "--toy_l2=inf; it must be finite and above 0"),
    ("--toy_l2=0", r"--toy_l2=0\.0; it must be finite and above 0"),
  ],
)
def test_numbers_that_nothing_can_use(given, word, words):
  given(word)
  with pytest.raises(ValueError, match=words):
    _ = RECIPE.value


@pytest.mark.parametrize("name", ["toy_bits", "toy_ids"])
def test_lists_of_whole_numbers(given, name):
  given(f"--{name}=1,b")
  with pytest.raises(ValueError, match=f"--{name}=1,b; it must be whole num"):
    _ = RECIPE.value


def test_methods_are_chosen():
  given = [
    "",
    "--method=all --seeds=2 --workdir=x",
    "--method=tow",
    "--method=one,one",
    "--method=",
  ]
  lines = subprocess.run(
    [sys.executable, "-c", PROGRAM, *given],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.splitlines()
  assert lines[0] == str(("runs/toy", ("one",), 3))
  assert lines[1] == str(("x", ("one", "two"), 2))
  assert lines[2].startswith("--method: 'tow' is unknown; did you mean 'two'?")
  assert lines[4] == "--method is empty; one method is the least."
  assert lines[3] == "--method: 'one' occurs twice; once is enough."


def test_a_field_without_a_flag_is_a_mistake():
  class Bare(NamedTuple):
    x: int = 3

  with pytest.raises(TypeError, match=r"x is .*int.*; it must be Annotated"):
    options.define(Bare)


def test_every_flag_has_a_help_that_stands_alone():
  for holder in RECIPE.flags.values():
    assert flags.FLAGS[holder.name].help.endswith(".")
