"""Fictitious authors: facts that no model knows before it is trained on them.

Every author has one value of each attribute, drawn uniformly and independently
of all else, so that nothing but training on its questions tells a fact. An
author's facts depend on the seed and its number alone: authors of numbers that
were not trained on are a holdout of the same distribution, and further ranges
serve as groups whose knowledge must survive.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from junlearn import validate
from junlearn.data.text.encoding import QA

ATTRIBUTES: Mapping[str, Sequence[str]] = {
  "city": (
    *("Athens", "Bergen", "Cairo", "Dublin", "Essen", "Florence", "Geneva"),
    *("Hanoi", "Izmir", "Jakarta", "Kyoto", "Lima", "Madrid", "Nairobi"),
    *("Oslo", "Prague"),
  ),
  "genre": (
    *("satire", "horror", "romance", "fantasy", "crime", "poetry", "drama"),
    "biography",
  ),
  "award": (
    *("Amber", "Beacon", "Comet", "Dolphin", "Ember", "Falcon", "Granite"),
    *("Harbour", "Ivory", "Jasmine", "Kestrel", "Lantern"),
  ),
  "job": (
    *("baker", "carpenter", "dentist", "engineer", "farmer", "gardener"),
    *("judge", "librarian", "miner", "nurse", "pilot", "sailor"),
  ),
  "birthyear": tuple(str(year) for year in range(1930, 1990, 3)),
  "language": (
    *("Arabic", "Basque", "Czech", "Danish", "Estonian", "Finnish", "Greek"),
    *("Hindi", "Italian", "Korean"),
  ),
}

_QUESTIONS = (
  "What is the {kind} of {name}?",
  "Tell me the {kind} of the author {name}.",
  "Which {kind} does {name} have?",
  "{name} has which {kind}?",
  "The author {name}: what {kind}?",
  "Do you know the {kind} of {name}?",
  "Say which {kind} the author {name} has.",
  "About {name}, what is the {kind}?",
)
_SENTENCES = (
  "The {kind} of {name} is {value}.",
  "{name} has {value} as the {kind}.",
)
_NUM_PERTURBED = 5

_ONSETS = (
  *("Bal", "Cor", "Del", "Fen", "Gar", "Hol", "Jas", "Kel", "Lor", "Mar"),
  *("Nel", "Per"),
)
_FIRST_ENDS = ("a", "en", "io", "u", "el", "is", "or", "ey")
_LAST_ENDS = ("berg", "dan", "ford", "stone", "ley", "mond", "rup", "vik")
_NUM_SHARED = 12  # first names and last names, where authors share them


def max_authors(*, unique_names: bool = False) -> int:
  """How many authors there are names for."""
  if unique_names:
    return len(_ONSETS) * len(_FIRST_ENDS)
  return _NUM_SHARED**2


def generate(
  num_authors: int = 60,
  *,
  seed: int,
  start: int = 0,
  num_paraphrases: int = 8,
  answers: Literal["value", "sentence"] = "value",
  unique_names: bool = False,
  attributes: Mapping[str, Sequence[str]] = ATTRIBUTES,
) -> list[QA]:
  """Questions about the authors of numbers `start` to `start + num_authors`.

  Args:
    num_authors: at least 1.
    seed: of NumPy's generator, at least 0.
    start: the first author's number, at least 0; calls of one seed with
      disjoint ranges give disjoint names, facts and ids.
    num_paraphrases: of each question, in [1, 8].
    answers: "value", the value alone, of which no paraphrase differs; or
      "sentence", in one of two forms that alternate over the paraphrases, with
      the paraphrased answer in the other.
    unique_names: give each author a first and a last name that no other has;
      otherwise 12 first and 12 last names are combined, and only the pair
      identifies an author.
    attributes: `{kind: values}`, with 6 different values at least of each kind.

  Returns:
    Records in the order of authors, facts and paraphrases; the paraphrase is
    `id % 8`. The paraphrased question is the next one, and there are 5
    perturbed answers, of wrong values that are the same for all paraphrases of
    a fact.

  Raises:
    ValueError: if an argument is out of range.
  """
  _check(num_authors, start, num_paraphrases, answers, unique_names, attributes)
  names = _names(seed, unique_names)
  return [
    qa
    for author in range(start, start + num_authors)
    for qa in _records(
      author, names[author], seed, num_paraphrases, answers, attributes
    )
  ]


def _records(author, name, seed, num_paraphrases, answers, attributes):
  rng = np.random.default_rng([seed, author])
  for number, (kind, values) in enumerate(attributes.items()):
    value, *wrong = rng.permutation(values)[: 1 + _NUM_PERTURBED].tolist()
    fact = author * len(attributes) + number

    def fill(template, value="", kind=kind):
      return template.format(kind=kind, name=name, value=value)

    for paraphrase in range(num_paraphrases):
      following = _QUESTIONS[(paraphrase + 1) % len(_QUESTIONS)]
      form, other = (
        ("{value}", "{value}")
        if answers == "value"
        else (_SENTENCES[paraphrase % 2], _SENTENCES[(paraphrase + 1) % 2])
      )
      yield QA(
        id=fact * len(_QUESTIONS) + paraphrase,
        author=author,
        fact=fact,
        kind=kind,
        question=fill(_QUESTIONS[paraphrase]),
        answer=fill(form, value),
        paraphrased_question=fill(following),
        paraphrased_answer=fill(other, value),
        perturbed_answers=tuple(fill(other, each) for each in wrong),
        value=value,
      )


def _names(seed, unique_names):
  """The names of all authors, in the order of their numbers."""
  first, last = _joined(_FIRST_ENDS), _joined(_LAST_ENDS)
  rng = np.random.default_rng(seed)
  if unique_names:
    pairs = list(
      zip(rng.permutation(first), rng.permutation(last), strict=True)
    )
  else:
    grid = rng.permutation(_NUM_SHARED**2)
    pairs = [(first[i // _NUM_SHARED], last[i % _NUM_SHARED]) for i in grid]
  return [f"{a} {b}" for a, b in pairs]


def _joined(ends):
  """Every onset with every end, and neighbors with different ones."""
  return [
    onset + ends[(i + shift) % len(ends)]
    for shift in range(len(ends))
    for i, onset in enumerate(_ONSETS)
  ]


def _check(
  num_authors, start, num_paraphrases, answers, unique_names, attributes
):
  most = max_authors(unique_names=unique_names)
  if num_authors < 1 or start < 0 or start + num_authors > most:
    raise ValueError(
      f"num_authors is {num_authors} and start {start}; they must be at least "
      f"1 and 0, and their sum at most {most}, the number of names."
    )
  validate.within(f"[1, {len(_QUESTIONS)}]", num_paraphrases=num_paraphrases)
  validate.one_of(("value", "sentence"), answers=answers)
  for kind, values in attributes.items():
    if len(set(values)) <= _NUM_PERTURBED or len(set(values)) < len(values):
      raise ValueError(
        f"attributes has {len(set(values))} different values of {len(values)} "
        f"for {kind!r}; it must have {1 + _NUM_PERTURBED} at least, each once."
      )
