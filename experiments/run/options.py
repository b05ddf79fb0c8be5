"""Flags of a program: one field of a NamedTuple is one flag.

class Recipe(NamedTuple):
epochs: Annotated[int, Flag("Epochs of training.", least=1)] = 40

RECIPE = options.define(Recipe)  # --epochs, with its default and bounds
RECIPE.value                     # the recipe that the flags describe
"""

import math
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from absl import flags

from experiments.run import program

R = TypeVar("R", bound=tuple)
D = TypeVar("D")

_LARGEST = 2**31

# What is defined below belongs to the program that asks for it.
flags.disclaim_key_flags()


class Flag(NamedTuple):
  """What a field's flag says, and what it allows.

  Attributes:
    help: a sentence that stands alone.
    least: the lowest number allowed, or None.
    above: a number that all allowed ones are above, or None.
    choices: the words allowed, or None for any.
  """

  help: str
  least: float | None = None
  above: float | None = None
  choices: Collection[str] | None = None


class Holder(Generic[R]):
  """The flags of a recipe.

  Attributes:
    flags: by field.
  """

  def __init__(
    self,
    recipe: Callable[..., R],
    holders: Mapping[str, Any],
    found: Mapping[str, Flag] | None = None,
    numbers: Collection[str] = (),
  ):
    self._recipe, self.flags = recipe, holders
    self._found, self._numbers = found or {}, numbers

  @property
  def value(self) -> R:
    """The recipe that the flags describe.

    Raises:
      ValueError: if a number is not finite or out of range, or a list holds
        what it must not.
    """
    for name, holder in self.flags.items():
      _check(name, holder.value, self._found.get(name))
    return self._recipe(
      **{
        name: whole(holder) if name in self._numbers else holder.value
        for name, holder in self.flags.items()
      }
    )


class Run(NamedTuple):
  """What every experiment is told.

  Attributes:
    workdir: folder of the run.
    method: methods to compare.
    seeds: how many.
  """

  workdir: str
  method: tuple[str, ...]
  seeds: int


class Images(NamedTuple):
  """Which images are read."""

  dataset: Annotated[
    str,
    Flag(
      "Data set: digits, mnist, fashion_mnist, cifar10, or a TFDS name "
      "prepared in --data_dir."
    ),
  ] = "digits"
  num_train: Annotated[
    int | None, Flag("Use the first so many training examples.", least=2)
  ] = None
  num_test: Annotated[
    int | None, Flag("Use the first so many test examples.", least=2)
  ] = None


def define(recipe: type[R], **defaults: Any) -> Holder[R]:
  """Defines a flag for every field of a recipe.

  Args:
    recipe: a NamedTuple whose fields are `Annotated` with a `Flag` and have
      defaults: numbers, words, booleans, or tuples of whole numbers or words.
    **defaults: those of this program, where they are others.

  Raises:
    TypeError: if a field has no `Flag`.
  """
  hints = typing.get_type_hints(recipe, include_extras=True)
  known = {**recipe._field_defaults, **defaults}
  return Holder(
    recipe,
    {name: _define(name, hints[name], known[name]) for name in hints},
    {name: _flag(name, hint) for name, hint in hints.items()},
    {n for n, hint in hints.items() if _is_list(hint) and int in _kinds(hint)},
  )


def run(
  folder: str, methods: Collection[str], default: Sequence[str], *, seeds=3
) -> Holder[Run]:
  """Defines `--workdir`, `--method` and `--seeds`.

  Args:
    folder: of the run, where none is given.
    methods: names allowed; "all" stands for them together.
    default: those compared where none is given.
    seeds: how many where none is given.
  """
  return Holder(
    lambda workdir, method, seeds: Run(
      workdir,
      tuple(methods) if method == ["all"] else _chosen(method, methods),
      seeds,
    ),
    {
      "workdir": flags.DEFINE_string(
        "workdir", folder, "Folder of the run; continued if begun."
      ),
      "method": flags.DEFINE_list(
        "method",
        list(default),
        f"Methods to compare: all, or some of {', '.join(methods)}.",
      ),
      "seeds": flags.DEFINE_integer(
        "seeds",
        seeds,
        "Seeds; each draws its own request, weights and batches.",
        lower_bound=1,
      ),
    },
  )


def load(images: Holder[Images], loader: Callable[..., D]) -> D:
  """What a loader such as `junlearn.data.load` makes of the flags.

  Raises:
    ValueError: naming the flag, if there is no such data set.
  """
  name, num_train, num_test = images.value
  with program.naming("dataset"):
    return loader(
      name,
      data_dir=flags.FLAGS.data_dir,
      manual_dir=flags.FLAGS.manual_dir,
      num_train=num_train,
      num_test=num_test,
    )


def whole(holder: flags.FlagHolder) -> tuple[int, ...] | None:
  """The whole numbers of a list flag, or None where it is not given.

  Raises:
    ValueError: naming the flag.
  """
  if holder.value is None:
    return None
  if not all(word.isdecimal() for word in holder.value):
    raise ValueError(
      f"--{holder.name}={','.join(holder.value)}; it must be whole numbers."
    )
  return tuple(int(word) for word in holder.value)


def _chosen(given: Sequence[str], allowed: Collection[str]) -> tuple[str, ...]:
  if not given:
    raise ValueError("--method is empty; one method is the least.")
  program.choose("method", given, allowed)
  return tuple(given)


def _check(name: str, value: Any, flag: Flag | None) -> None:
  """Of numbers with a bound; absl has looked at `least`, but not at NaN."""
  if flag is None or not isinstance(value, int | float):
    return
  if flag.above is not None and not flag.above < value < math.inf:
    words = f"finite and above {flag.above:g}"
  elif flag.least is not None and not abs(value) < _LARGEST:
    words = "finite and below 2**31"
  else:
    return
  raise ValueError(f"--{name}={value}; it must be {words}.")


def _kinds(hint: Any) -> tuple[Any, ...]:
  """The types that a field allows; of a tuple, those of its items."""
  kind = typing.get_args(hint)[0]
  kinds = typing.get_args(kind) if _is_optional(kind) else (kind,)
  return tuple(
    typing.get_args(each)[0] if typing.get_origin(each) is tuple else each
    for each in kinds
  )


def _is_optional(kind: Any) -> bool:
  return type(None) in typing.get_args(kind)


def _is_list(hint: Any) -> bool:
  kind = typing.get_args(hint)[0]
  options = typing.get_args(kind) if _is_optional(kind) else (kind,)
  return any(typing.get_origin(each) is tuple for each in options)


def _flag(name: str, hint: Any) -> Flag:
  for each in typing.get_args(hint)[1:]:
    if isinstance(each, Flag):
      return each
  raise TypeError(f"{name} is {hint}; it must be Annotated with a Flag.")


def _define(name: str, hint: Any, default: Any) -> Any:
  flag, kinds = _flag(name, hint), _kinds(hint)
  if flag.choices is not None:
    return flags.DEFINE_enum(name, default, list(flag.choices), flag.help)
  if _is_list(hint):
    words = None if default is None else [str(each) for each in default]
    return flags.DEFINE_list(name, words, flag.help)
  if bool in kinds:
    return flags.DEFINE_boolean(name, default, flag.help)
  bounds = {} if flag.least is None else {"lower_bound": flag.least}
  if float in kinds:
    return flags.DEFINE_float(name, default, flag.help, **bounds)
  if int in kinds:
    return flags.DEFINE_integer(name, default, flag.help, **bounds)
  return flags.DEFINE_string(name, default, flag.help)
