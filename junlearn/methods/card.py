"""What to know of a method before reading it."""

from typing import Literal, NamedTuple

Part = Literal["forget", "retain", "extra"]
Modality = Literal[
  "any", "classification", "decentralized", "feature", "language"
]


class Card(NamedTuple):
  """One row of the table of methods.

  Attributes:
    paper: authors, venue or year, and arXiv id, as the module's docstring has
      them; "" for the reference.
    modality: the package of experiments that it is made for, or "any".
    reads: parts of the request that decide its result, with default arguments.
    needs_retain: whether it refuses a request without `retain`.
    cost: in words; a step is a gradient on a batch, an HVP a product with a
      curvature matrix.
    guarantee: in words, or "none".
  """

  paper: str
  modality: Modality
  reads: tuple[Part, ...]
  needs_retain: bool
  cost: str
  guarantee: str = "none"
