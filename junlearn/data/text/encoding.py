"""Questions and answers as rows of tokens, of few static shapes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from junlearn import validate
from junlearn.data.text import tokenizer as tokenizers
from junlearn.data.text.tokenizer import Tokenizer


class QA(NamedTuple):
  """A record: one question about one fact, and its answer.

  Attributes:
    id: of the record.
    author: of whom it tells, or another entity.
    fact: what it asks for; its paraphrases share it.
    kind: of fact; facts of one kind have comparable values. "" if there is none
      to compare with.
    question: one of its paraphrases.
    answer: never empty.
    paraphrased_question: the same question in other words.
    paraphrased_answer: the same answer in other words.
    perturbed_answers: wrong answers, worded as the paraphrased one.
    value: the part of the answer that answers; "" means all of it.
  """

  id: int
  author: int
  fact: int
  kind: str
  question: str
  answer: str
  paraphrased_question: str = ""
  paraphrased_answer: str = ""
  perturbed_answers: tuple[str, ...] = ()
  value: str = ""


class Template(NamedTuple):
  """The texts of a prompt and of an answer.

  Attributes:
    prompt: with `{question}` in it. What the tokenizer itself puts before a
      text, such as a token that begins it, is added and not written here.
    answer: with `{answer}` in it; the tokenizer's `eos` follows.
  """

  prompt: str
  answer: str


TEMPLATES = {
  "plain": Template("{question}", " {answer}"),
  "qa": Template("Question: {question}\nAnswer:", " {answer}"),
  "llama3": Template(
    "<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "{answer}",
  ),
  "chatml": Template(
    "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
    "{answer}",
  ),
}


def texts(
  qas: Iterable[QA], *, template: Template = TEMPLATES["plain"]
) -> list[str]:
  """All that records may be asked and answer: texts to build a tokenizer of."""
  found = []
  for qa in qas:
    questions = (qa.question, qa.paraphrased_question)
    answers = (qa.answer, qa.paraphrased_answer, *qa.perturbed_answers)
    found += [_fill(template.prompt, "question", q) for q in questions if q]
    found += [_fill(template.answer, "answer", a) for a in answers if a]
  return found


def encode(
  tokenizer: Tokenizer,
  qas: Sequence[QA],
  *,
  template: Template = TEMPLATES["plain"],
  length: int | None = None,
  multiple_of: int = 8,
) -> dict[str, np.ndarray]:
  """Examples of which the answers and their end tokens are to be predicted.

  Prompt and answer are tokenised apart, so that no token lies across their
  boundary, and an answer is trained after exactly the tokens that `prompts`
  gives for generating it.

  Args:
    tokenizer: to encode with.
    qas: `n` records, at least one.
    template: of prompt and answer.
    length: of the rows in tokens; None takes that of the longest record,
      rounded up to `multiple_of`.
    multiple_of: at least 1; few lengths mean few compiled programs.

  Returns:
    `input` int32 `[n, length]`, padded on the right; `mask` bool `[n, length]`;
    `id`, `author` and `fact` int32 `[n]`.

  Raises:
    ValueError: if there is no record, an answer is empty, the template lacks a
      place, or a record has more tokens than `length`.
  """
  empty = [qa.id for qa in qas if not qa.answer.strip()]
  if empty:
    raise ValueError(
      f"qas has an empty answer in the record of id {empty[0]}; every record "
      "must have an answer."
    )
  before = _prompt_tokens(tokenizer, qas, template)
  after = tokenizers.encode(
    tokenizer, [_fill(template.answer, "answer", qa.answer) for qa in qas]
  )
  rows = [p + a + [tokenizer.eos] for p, a in zip(before, after, strict=True)]
  length = _common_length(rows, length, multiple_of)
  mask = np.zeros((len(rows), length), bool)
  for i, (prompt, row) in enumerate(zip(before, rows, strict=True)):
    mask[i, len(prompt) : len(row)] = True
  return {
    "input": _pad_right(rows, length, tokenizer.pad),
    "mask": mask,
    **{
      name: np.asarray([getattr(qa, name) for qa in qas], np.int32)
      for name in ("id", "author", "fact")
    },
  }


def prompts(
  tokenizer: Tokenizer,
  qas: Sequence[QA],
  *,
  template: Template = TEMPLATES["plain"],
  prefix: str = "",
  length: int | None = None,
  multiple_of: int = 8,
) -> dict[str, np.ndarray]:
  """Inputs for generating answers: prompts, padded on the left.

  Args:
    tokenizer: to encode with.
    qas: `n` records, at least one; their answers are not read.
    template: of the prompt.
    prefix: text that begins every answer, after the template's own.
    length: of the rows in tokens, as in `encode`.
    multiple_of: as in `encode`.

  Returns:
    `tokens`, `positions` and `segments`, int32 `[n, length]`. Segment 0 is
    padding, and positions count from the first token of the prompt.

  Raises:
    ValueError: as `encode`.
  """
  rows = _prompt_tokens(tokenizer, qas, template)
  if prefix:
    before = template.answer.partition("{answer}")[0]
    [begun] = tokenizers.encode(tokenizer, [before + prefix])
    rows = [row + begun for row in rows]
  length = _common_length(rows, length, multiple_of)
  start = length - np.asarray([len(row) for row in rows], np.int32)
  places = np.arange(length, dtype=np.int32) - start[:, None]
  mirrored = _pad_right([row[::-1] for row in rows], length, tokenizer.pad)
  return {
    "tokens": mirrored[:, ::-1].copy(),
    "positions": np.maximum(places, 0),
    "segments": (places >= 0).astype(np.int32),
  }


def decode(tokenizer: Tokenizer, tokens: Any) -> list[str]:
  """The texts of token rows `[n, t]`, each up to its first end token."""
  rows = []
  for row in np.asarray(tokens):
    ends = np.flatnonzero(row == tokenizer.eos)
    rows.append(row[: ends[0]].tolist() if ends.size else row.tolist())
  return [text.strip() for text in tokenizer.encoder.decode_batch(rows)]


def pair(
  examples: Mapping[str, Any], alternatives: Mapping[str, Any]
) -> dict[str, Any]:
  """The examples with another answer to each, for objectives on pairs.

  Args:
    examples: `n` rows.
    alternatives: the same records with other answers, row by row.

  Returns:
    The examples with `alternative`, the `input` and `mask` of the others.

  Raises:
    ValueError: if the ids differ.
  """
  if not np.array_equal(examples["id"], alternatives["id"]):
    raise ValueError(
      "alternatives has other ids than examples; row by row they must be the "
      "same records."
    )
  other = {key: alternatives[key] for key in ("input", "mask")}
  return {**examples, "alternative": other}


def _fill(template, field, value):
  place = f"{{{field}}}"
  if place not in template:
    raise ValueError(
      f"template is {template!r}; it must contain {place} where the {field} "
      "goes."
    )
  return template.replace(place, value)


def _prompt_tokens(tokenizer, qas, template):
  if not qas:
    raise ValueError("qas is empty; one record is the least.")
  questions = [_fill(template.prompt, "question", qa.question) for qa in qas]
  rows = tokenizers.encode(tokenizer, questions, special=True)
  # Some tokenizers end every text; a prompt goes on.
  return [row[:-1] if row[-1:] == [tokenizer.eos] else row for row in rows]


def _common_length(rows, length, multiple_of):
  validate.at_least(1, multiple_of=multiple_of)
  lengths = np.asarray([len(row) for row in rows])
  if length is None:
    return -(-int(lengths.max()) // multiple_of) * multiple_of
  _check_lengths(lengths, length)
  return length


def _check_lengths(lengths, length):
  too_long = int(np.sum(lengths > length))
  if too_long:
    raise ValueError(
      f"length is {length}, and {too_long} of {len(lengths)} records have more "
      f"tokens, the longest {lengths.max()}; nothing is cut."
    )


def _pad_right(rows, length, pad):
  padded = np.full((len(rows), length), pad, np.int32)
  for i, row in enumerate(rows):
    padded[i, : len(row)] = row
  return padded
