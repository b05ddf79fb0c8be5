"""What is to be forgotten, what stays, and what models are asked.

A `Corpus` holds records of questions and answers; one request of one seed is a
`Task` over it. Requests of a corpus have arrays of the same shapes, told apart
by weights, so that all trainings and all uses of a method share one program.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from junlearn.data import select
from junlearn.data.text import authors, encoding, negatives, tofu, tokenizer
from junlearn.data.text.encoding import QA, Template
from junlearn.data.text.tokenizer import Tokenizer
from junlearn.transform import Request

PREFIX = "Sure, here is the answer:"
_MULTIPLE = 4  # lengths of rows are rounded up to it
_LIMIT = 200  # records of a part, from which its metrics are computed
_SPOKEN = 48  # records of a kind that are answered in words


class Corpus(NamedTuple):
  """Records and how they become tokens.

  Attributes:
    name: of the data set.
    trained: what the original model is trained on.
    unseen: records of the same kind that no model is trained on.
    others: records of other kinds, by name, whose knowledge should survive.
    refusals: answers that say nothing.
    tokenizer: of the models.
    template: of prompts and answers.
    known: phrasings of a fact that a request names; others are held out.
    drawn: whether authors to forget are drawn at random; otherwise they are the
      last ones, as in TOFU.
    graded: whether what is known of an answer is the share of its tokens, as
      suits long ones; otherwise all or nothing.
    max_length: the most tokens that models take.
  """

  name: str
  trained: tuple[QA, ...]
  unseen: tuple[QA, ...]
  others: Mapping[str, tuple[QA, ...]]
  refusals: tuple[str, ...]
  tokenizer: Tokenizer
  template: Template
  known: int
  drawn: bool = True
  graded: bool = False
  max_length: int = 2048

  def encode(self, qas: Sequence[QA]) -> dict[str, np.ndarray]:
    """Examples of the records.

    Raises:
      ValueError: if some are too long.
    """
    form = {"template": self.template}
    examples = encoding.encode(
      self.tokenizer, qas, multiple_of=_MULTIPLE, **form
    )
    if examples["input"].shape[1] <= self.max_length:
      return examples
    return encoding.encode(self.tokenizer, qas, length=self.max_length, **form)


class Task(NamedTuple):
  """One request of one seed.

  Attributes:
    name: of the request.
    records: named by the request: the known phrasings of the facts.
    request: these records, filled up with absent ones, and all that was
      trained on, where what the request touches is absent.
    alternatives: examples of the same records with other answers:
      `counterfactual` and `refusal`.
    parts: records on which metrics are computed, by name. `forget`: the
      records, `heldout`: other phrasings of their facts, `neighbour`: other
      facts of their authors, `retain`, `unseen` and those of `Corpus.others`;
      `replaced`: `heldout` with the counterfactual answers; and, of those that
      have perturbed answers, `NAME/right` and `NAME/wrong`.
    spoken: records that are answered in words, by part.
    known: one phrasing of half of the facts, which an attacker relearns; empty
      where there is one fact only.
    hidden: all phrasings of the other half.
  """

  name: str
  records: tuple[QA, ...]
  request: Request
  alternatives: Mapping[str, Any]
  parts: Mapping[str, tuple[QA, ...]]
  spoken: Mapping[str, tuple[QA, ...]]
  known: tuple[QA, ...]
  hidden: tuple[QA, ...]


def fictitious(
  num_authors: int,
  *,
  answers: str = "value",
  num_phrasings: int = 8,
  attributes: Mapping[str, Sequence[str]] = authors.ATTRIBUTES,
  template: str = "plain",
  encoder: Tokenizer | None = None,
  known: int = 5,
  **options: Any,
) -> Corpus:
  """Invented authors, the same for all seeds; a tenth more are unseen.

  Args:
    num_authors: to train on.
    answers: "value" or "sentence", see `authors.generate`.
    num_phrasings: of each question.
    attributes: values of each kind.
    template: of prompts and answers.
    encoder: a tokenizer; None for one of the words that occur.
    known: phrasings of a fact that a request names.
    **options: of the corpus.
  """
  unseen = max(num_authors // 10, 1)
  trained, rest = (
    tuple(
      authors.generate(
        n,
        seed=0,
        start=start,
        num_phrasings=num_phrasings,
        answers=answers,
        attributes=attributes,
      )
    )
    for n, start in ((num_authors, 0), (unseen, num_authors))
  )
  form = encoding.TEMPLATES[template]
  if encoder is None:
    words = encoding.texts([*trained, *rest], template=form)
    encoder = tokenizer.words([*words, PREFIX, *negatives.REFUSALS])
  return Corpus(
    "authors",
    trained,
    rest,
    {},
    negatives.REFUSALS,
    encoder,
    form,
    known,
    **options,
  )


def tofu_authors(
  num_authors: int,
  *,
  vocab_size: int,
  template: str = "plain",
  encoder: Tokenizer | None = None,
  data_dir: str,
  manual_dir: str | None = None,
  **options: Any,
) -> Corpus:
  """TOFU, or a subset of it.

  Args:
    num_authors: up to 200, nine tenths of them from the beginning of the
      official order and the rest from its end, so that the last tenth are of
      `forget10` and the first ones have perturbed answers.
    vocab_size: of the tokenizer that is trained on the texts.
    template: of prompts and answers.
    encoder: a tokenizer instead.
    data_dir: folder of the prepared sets.
    manual_dir: folder of the official files; None downloads them.
    **options: of the corpus.
  """
  places = {"data_dir": data_dir, "manual_dir": manual_dir}
  full = tofu.load("full", **places)
  known = sorted({qa.author for qa in full})
  if not 2 <= num_authors <= len(known):
    raise ValueError(
      f"num_authors is {num_authors}; it must be from 2 to {len(known)}."
    )
  last = max(num_authors // 10, 1)
  kept = {*known[: num_authors - last], *known[-last:]}
  trained = tuple(qa for qa in full if qa.author in kept)
  unseen = tuple(tofu.load("holdout10", **places))
  others = {
    name: tuple(tofu.load(name, **places))
    for name in ("real_authors", "world_facts")
  }
  refusals = tuple(tofu.refusals(**places))
  form = encoding.TEMPLATES[template]
  if encoder is None:
    everything = itertools.chain(trained, unseen, *others.values())
    words = encoding.texts(everything, template=form)
    encoder = tokenizer.train_bpe([*words, *refusals], vocab_size)
  return Corpus(
    "tofu",
    trained,
    unseen,
    others,
    refusals,
    encoder,
    form,
    known=1,
    drawn=False,
    graded=True,
    **options,
  )


def by_column(
  corpus: Corpus, column: str, values: Sequence[int]
) -> frozenset[int]:
  """The facts of some authors ("author"), or that some records ("id") ask for.

  Raises:
    ValueError: as `select.by_column`.
  """
  request = select.by_column(_columns(corpus), column, values)
  return frozenset(request.forget["fact"].tolist())


def by_fraction(corpus: Corpus, fraction: float, seed: int) -> frozenset[int]:
  """The facts of a fraction of the authors.

  Raises:
    ValueError: as `select.by_fraction`.
  """
  request = select.by_fraction(
    _columns(corpus), fraction, seed=seed, column="author"
  )
  drawn = np.unique(request.forget["author"])
  if corpus.drawn:
    return by_column(corpus, "author", drawn)
  known = np.unique(_columns(corpus)["author"])
  return by_column(corpus, "author", known[-len(drawn) :])


def one_author(corpus: Corpus, seed: int) -> frozenset[int]:
  """The facts of one author."""
  known = np.unique(_columns(corpus)["author"])
  row = np.random.default_rng(seed).integers(len(known)) if corpus.drawn else -1
  return by_column(corpus, "author", [known[row]])


def num_known(corpus: Corpus, facts: frozenset[int]) -> int:
  """How many records a request for these facts names."""
  return len(_divide(corpus, facts)[0])


def make(
  corpus: Corpus,
  name: str,
  facts: frozenset[int],
  seed: int,
  *,
  capacity: int | None = None,
) -> Task:
  """The task of forgetting some facts.

  Args:
    corpus: what models are trained on.
    name: of the request.
    facts: to forget.
    seed: of the counterfactual answers and of what is measured.
    capacity: rows of the forget examples; None for as many as there are.
  """
  records, heldout, stay = _divide(corpus, facts)
  touched = {qa.author for qa in records}
  rng = np.random.default_rng(seed)
  asked = {"seed": seed, "pool": corpus.trained}
  false = negatives.build([*records, *heldout], **asked)
  answers = {
    "counterfactual": false[: len(records)],
    "refusal": negatives.build(
      records, mode="refusal", seed=seed, refusals=corpus.refusals
    ),
  }
  parts = {
    "forget": records,
    "heldout": heldout,
    "replaced": false[len(records) :],
    "neighbour": [qa for qa in stay if qa.author in touched],
    "retain": _comparable(
      [qa for qa in stay if qa.author not in touched] or stay
    ),
    "unseen": corpus.unseen,
    **corpus.others,
  }
  parts = {k: _some(part, _LIMIT, rng) for k, part in parts.items() if part}
  spoken = {
    part: _some(_first_phrasings(parts[part]), _SPOKEN, rng)
    for part in ("forget", "retain", *corpus.others)
  }
  for part in ("forget", "retain", *corpus.others):
    parts |= _judged(part, parts[part], original=part in corpus.others)
  everything = corpus.encode(corpus.trained)
  stays = select.by_column(everything, "fact", list(facts)).retain["id"]
  stays = np.isin(everything["id"], stays)
  capacity = capacity or len(records)
  return Task(
    name,
    tuple(records),
    Request(
      forget=filled(corpus.encode(records), capacity),
      retain={**everything, "weight": stays.astype(np.float32)},
    ),
    {k: filled(corpus.encode(qas), capacity) for k, qas in answers.items()},
    {k: tuple(part) for k, part in parts.items()},
    spoken,
    *_halves(records, heldout, rng),
  )


def all_of(corpus: Corpus) -> Request:
  """The request of which nothing is forgotten: training on everything."""
  examples = corpus.encode(corpus.trained)
  weight = np.ones(len(corpus.trained), np.float32)
  return Request(None, {**examples, "weight": weight})


def _columns(corpus):
  return {
    name: np.asarray([getattr(qa, name) for qa in corpus.trained])
    for name in ("id", "author", "fact")
  }


def _divide(corpus, facts):
  """Known phrasings of the facts, those held out, and all other records."""
  seen, known, heldout, stay = {}, [], [], []
  for qa in corpus.trained:
    if qa.fact not in facts:
      stay.append(qa)
      continue
    seen[qa.fact] = seen.get(qa.fact, 0) + 1
    (known if seen[qa.fact] <= corpus.known else heldout).append(qa)
  if not heldout:
    heldout = [
      qa._replace(question=qa.paraphrased_question)
      for qa in known
      if qa.paraphrased_question
    ]
  return known, heldout, stay


def _some(qas, number, rng):
  """At most so many of the records, in their order."""
  if len(qas) <= number:
    return tuple(qas)
  rows = np.sort(rng.permutation(len(qas))[:number])
  return tuple(qas[row] for row in rows)


def _comparable(qas):
  """Those that have perturbed answers, if there are any."""
  return [qa for qa in qas if qa.perturbed_answers] or qas


def _first_phrasings(qas):
  return list({qa.fact: qa for qa in reversed(qas)}.values())[::-1]


def _judged(name, qas, *, original):
  """Records with the right answers and, `k` for each, the wrong ones."""
  able = [qa for qa in qas if qa.perturbed_answers]
  if not able:
    return {}
  number = min(len(qa.perturbed_answers) for qa in able)
  right = [
    qa
    if original or not qa.paraphrased_answer
    else qa._replace(answer=qa.paraphrased_answer)
    for qa in able
  ]
  wrong = [
    qa._replace(answer=answer)
    for qa in able
    for answer in qa.perturbed_answers[:number]
  ]
  return {f"{name}/right": right, f"{name}/wrong": wrong}


def _halves(records, heldout, rng):
  """The first phrasings of half of the facts, and all of the other half."""
  facts = sorted({qa.fact for qa in records})
  shown = set(rng.permutation(facts)[: len(facts) // 2].tolist())
  known = [qa for qa in _first_phrasings(records) if qa.fact in shown]
  hidden = [qa for qa in (*records, *heldout) if qa.fact not in shown]
  return tuple(known), tuple(hidden)


def filled(examples: Mapping[str, Any], capacity: int) -> dict[str, Any]:
  """The examples with `weight`, filled up with absent ones."""
  n = len(examples["id"])
  rows = np.minimum(np.arange(capacity), n - 1)
  filled = {key: value[rows] for key, value in examples.items()}
  return {**filled, "weight": (np.arange(capacity) < n).astype(np.float32)}
