"""What is to be forgotten, what stays, and what models are asked."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from experiments.language.corpora import Corpus
from experiments.run import program
from experiments.run.options import Flag
from junlearn.data import select
from junlearn.data.text import negatives
from junlearn.data.text.encoding import QA
from junlearn.transform import Request

REQUESTS = ("author", "fraction")
_LIMIT = 200  # records of a part, from which its metrics are computed
_GENERATED = 48  # records of a part whose answers are generated


class Asked(NamedTuple):
  """What is to be forgotten; chosen authors or questions are one request."""

  request: Annotated[
    tuple[str, ...],
    Flag("Requests: author (one of them) and fraction (of the authors)."),
  ] = REQUESTS
  forget_fraction: Annotated[
    float,
    Flag("Fraction of the authors that is forgotten by --request=fraction."),
  ] = 0.1
  forget_authors: Annotated[
    tuple[int, ...] | None,
    Flag("Forget these authors, by number; the only request."),
  ] = None
  forget_questions: Annotated[
    tuple[int, ...] | None,
    Flag("Forget what the records of these ids ask for; the only request."),
  ] = None


class Task(NamedTuple):
  """One request of one seed.

  Attributes:
    name: of the request.
    records: named by the request: some paraphrases of the facts.
    request: these records, with absent ones up to the rows of all tasks, and
      all that was trained on, where what the request touches is absent.
    alternatives: examples of the same records with other answers:
      `counterfactual` and `refusal`.
    parts: records on which metrics are computed, by name. `forget`: the
      records, `heldout`: other paraphrases of their facts, `neighbor`: other
      facts of their authors, `retain`, `unseen` and those of `Corpus.others`;
      `replaced`: `heldout` with the counterfactual answers; and, of those that
      have perturbed answers, `NAME/right` and `NAME/wrong`.
    generated: records whose answers are generated, by part.
    shown: one paraphrase of half of the facts, which an attacker relearns;
      empty where there is one fact only.
    hidden: all paraphrases of the other half.
  """

  name: str
  records: tuple[QA, ...]
  request: Request
  alternatives: Mapping[str, Any]
  parts: Mapping[str, tuple[QA, ...]]
  generated: Mapping[str, tuple[QA, ...]]
  shown: tuple[QA, ...]
  hidden: tuple[QA, ...]


def of_seed(corpus: Corpus, asked: Asked, seed: int) -> list[Task]:
  """The tasks of a seed, all with arrays of the same shapes.

  Raises:
    ValueError: naming the flag that does not fit the corpus.
  """
  chosen = _choose(corpus, asked, seed)
  rows = max(len(_divide(corpus, facts)[0]) for facts in chosen.values())
  return [
    make(corpus, name, facts, seed, rows=rows) for name, facts in chosen.items()
  ]


def _choose(
  corpus: Corpus, asked: Asked, seed: int
) -> dict[str, frozenset[int]]:
  """What each request of a seed forgets."""
  for name, column in (("authors", "author"), ("questions", "id")):
    values = getattr(asked, f"forget_{name}")
    if values is not None:
      with program.naming(f"forget_{name}"):
        return {name: by_column(corpus, column, values)}
  program.choose("request", asked.request, REQUESTS)
  if not asked.request:
    raise ValueError("--request is empty; one request is the least.")
  chosen = {}
  for name in asked.request:
    if name == "author":
      chosen[name] = one_author(corpus, seed)
      continue
    with program.naming("forget_fraction"):
      chosen[name] = by_fraction(corpus, asked.forget_fraction, seed)
  return chosen


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


def make(
  corpus: Corpus,
  name: str,
  facts: frozenset[int],
  seed: int,
  *,
  rows: int | None = None,
) -> Task:
  """The task of forgetting some facts.

  Args:
    corpus: what models are trained on.
    name: of the request.
    facts: to forget.
    seed: of the counterfactual answers and of what is measured.
    rows: of the forget examples; None for as many as there are.
  """
  records, heldout, stay = _divide(corpus, facts)
  rows = rows or len(records)
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
    "neighbor": [qa for qa in stay if qa.author in touched],
    "retain": _comparable(
      [qa for qa in stay if qa.author not in touched] or stay
    ),
    "unseen": corpus.unseen,
    **corpus.others,
  }
  parts = {k: _some(part, _LIMIT, rng) for k, part in parts.items() if part}
  kinds = ("forget", "retain", *corpus.others)
  generated = {
    part: _some(_first_paraphrases(parts[part]), _GENERATED, rng)
    for part in kinds
  }
  for part in kinds:
    parts |= _judged(part, parts[part], original=part in corpus.others)
  everything = corpus.encode(corpus.trained)
  stays = select.by_column(everything, "fact", list(facts)).retain["id"]
  stays = np.isin(everything["id"], stays)
  return Task(
    name,
    tuple(records),
    Request(
      forget=corpus.encode(records, rows=rows),
      retain={**everything, "weight": stays.astype(np.float32)},
    ),
    {k: corpus.encode(qas, rows=rows) for k, qas in answers.items()},
    {k: tuple(part) for k, part in parts.items()},
    generated,
    *_halves(records, heldout, rng),
  )


def all_of(corpus: Corpus) -> Request:
  """The request of which nothing is forgotten: training on everything."""
  examples = corpus.encode(corpus.trained, rows=len(corpus.trained))
  return Request(None, examples)


def _columns(corpus):
  return {
    name: np.asarray([getattr(qa, name) for qa in corpus.trained])
    for name in ("id", "author", "fact")
  }


def _divide(corpus, facts):
  """Named paraphrases of the facts, those held out, and all other records."""
  seen, named, heldout, stay = {}, [], [], []
  for qa in corpus.trained:
    if qa.fact not in facts:
      stay.append(qa)
      continue
    seen[qa.fact] = seen.get(qa.fact, 0) + 1
    (named if seen[qa.fact] <= corpus.named else heldout).append(qa)
  if not heldout:
    heldout = [
      qa._replace(question=qa.paraphrased_question)
      for qa in named
      if qa.paraphrased_question
    ]
  return named, heldout, stay


def _some(qas, number, rng):
  """At most so many of the records, in their order."""
  if len(qas) <= number:
    return tuple(qas)
  rows = np.sort(rng.permutation(len(qas))[:number])
  return tuple(qas[row] for row in rows)


def _comparable(qas):
  """Those that have perturbed answers, if there are any."""
  return [qa for qa in qas if qa.perturbed_answers] or qas


def _first_paraphrases(qas):
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
  """One paraphrase of half of the facts, and all of the other half."""
  facts = sorted({qa.fact for qa in records})
  half = set(rng.permutation(facts)[: len(facts) // 2].tolist())
  shown = [qa for qa in _first_paraphrases(records) if qa.fact in half]
  hidden = [qa for qa in (*records, *heldout) if qa.fact not in half]
  return tuple(shown), tuple(hidden)
