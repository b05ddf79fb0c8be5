"""Which training records of an image classifier are to be forgotten."""

from typing import Annotated, Any, NamedTuple

from experiments.run import program
from experiments.run.options import Flag
from junlearn.data import select
from junlearn.transform import Request


class Asked(NamedTuple):
  """What is to be forgotten; at most one of the fields is given."""

  forget_fraction: Annotated[
    float | None,
    Flag("Forget a random fraction of the training records (default 0.1)."),
  ] = None
  forget_class: Annotated[int | None, Flag("Forget a whole class.")] = None
  forget_ids: Annotated[
    tuple[int, ...] | None, Flag("Forget the records of these ids.")
  ] = None


class Task(NamedTuple):
  """One request of one seed.

  Attributes:
    request: what to forget and what to keep.
    readable: what of it the methods may read.
    name: of the request.
  """

  request: Request
  readable: Request
  name: str = ""


def request(train: dict[str, Any], asked: Asked, seed: int) -> Request:
  """The request over training records, drawn with the seed.

  Raises:
    ValueError: naming the flag.
  """
  if asked.forget_class is not None:
    with program.naming("forget_class"):
      return select.by_class(train, asked.forget_class)
  if asked.forget_ids is not None:
    with program.naming("forget_ids"):
      return select.by_id(train, asked.forget_ids)
  fraction = 0.1 if asked.forget_fraction is None else asked.forget_fraction
  with program.naming("forget_fraction"):
    return select.by_fraction(train, fraction, seed=seed)
