"""What models are trained on: records of questions and answers.

Requests of a corpus have arrays of the same shapes, told apart by weights, so
that all trainings and all uses of a method share one program.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from absl import flags

from experiments.run import program
from experiments.run.options import Flag
from junlearn.data.text import authors, encoding, negatives, tofu, tokenizer
from junlearn.data.text.encoding import QA, Template
from junlearn.data.text.tokenizer import Tokenizer

# What an attacker begins an answer with; every vocabulary can say it.
PREFIX = "Sure, here is the answer:"
_MULTIPLE = 4  # lengths of rows are rounded up to it


class Source(NamedTuple):
  """Which records are learned, and how they become tokens."""

  dataset: Annotated[
    str, Flag("Whose questions are learned.", choices=("authors", "tofu"))
  ] = "authors"
  num_authors: Annotated[
    int | None,
    Flag("Authors to train on (default 60; of tofu all 200).", least=2),
  ] = None
  answers: Annotated[
    str,
    Flag("Form of fictitious authors' answers.", choices=("value", "sentence")),
  ] = "value"
  tokenizer: Annotated[
    str | None,
    Flag(
      "A tokenizer.json or its folder; by default the checkpoint's, or one "
      "built of the texts."
    ),
  ] = None
  vocab_size: Annotated[
    int, Flag("Size of the vocabulary built of tofu's texts.", least=258)
  ] = 2048
  template: Annotated[
    str, Flag("Form of prompts and answers.", choices=encoding.TEMPLATES)
  ] = "plain"


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
    named: paraphrases of a fact that a request names; others are held out.
    drawn: whether authors to forget are drawn at random; otherwise they are the
      last ones, as in TOFU.
    graded: whether what is known of an answer is the fraction of its tokens, as
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
  named: int
  drawn: bool = True
  graded: bool = False
  max_length: int = 2048

  def encode(
    self, qas: Sequence[QA], *, rows: int | None = None
  ) -> dict[str, np.ndarray]:
    """Examples of the records.

    Args:
      qas: at least one.
      rows: up to which absent records are added, told by their `weight` of 0;
        None for the records alone, without a weight.

    Raises:
      ValueError: if some are too long.
    """
    form = {"template": self.template}
    examples = encoding.encode(
      self.tokenizer, qas, multiple_of=_MULTIPLE, **form
    )
    if examples["input"].shape[1] > self.max_length:
      examples = encoding.encode(
        self.tokenizer, qas, length=self.max_length, **form
      )
    if rows is None:
      return examples
    index = np.minimum(np.arange(rows), len(qas) - 1)
    padded = {name: value[index] for name, value in examples.items()}
    is_there = np.arange(rows) < len(qas)
    return {**padded, "weight": is_there.astype(np.float32)}


def load(
  source: Source, *, model: str | None, max_length: int | None
) -> Corpus:
  """The corpus that the flags describe.

  Args:
    source: the flags' values.
    model: folder of a checkpoint, which has a tokenizer of its own, or None.
    max_length: the most tokens that it takes; None for the usual number.

  Raises:
    ValueError, OSError: naming the flag.
  """
  options: dict[str, Any] = {"template": source.template}
  if max_length is not None:
    options["max_length"] = max_length
  folder = source.tokenizer or model
  if folder is not None:
    with program.naming("model" if source.tokenizer is None else "tokenizer"):
      options["encoder"] = tokenizer.load(folder)
  if source.dataset == "authors":
    with program.naming("num_authors"):
      return fictitious(
        source.num_authors or 60, answers=source.answers, **options
      )
  with program.naming("dataset"):
    return tofu_authors(
      source.num_authors or 200,
      vocab_size=source.vocab_size,
      data_dir=flags.FLAGS.data_dir,
      manual_dir=flags.FLAGS.manual_dir,
      **options,
    )


def fictitious(
  num_authors: int,
  *,
  answers: str = "value",
  num_paraphrases: int = 8,
  attributes: Mapping[str, Sequence[str]] = authors.ATTRIBUTES,
  template: str = "plain",
  encoder: Tokenizer | None = None,
  named: int = 5,
  **options: Any,
) -> Corpus:
  """Invented authors, the same for all seeds; a tenth more are unseen.

  Args:
    num_authors: to train on.
    answers: "value" or "sentence", see `authors.generate`.
    num_paraphrases: of each question.
    attributes: values of each kind.
    template: of prompts and answers.
    encoder: a tokenizer; None for one of the words that occur.
    named: paraphrases of a fact that a request names.
    **options: of the corpus.
  """
  unseen = max(num_authors // 10, 1)
  trained, rest = (
    tuple(
      authors.generate(
        n,
        seed=0,
        start=start,
        num_paraphrases=num_paraphrases,
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
    named,
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
    named=1,
    drawn=False,
    graded=True,
    **options,
  )
