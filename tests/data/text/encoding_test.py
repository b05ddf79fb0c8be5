"""Rows of tokens: what is masked is the answer, and nothing is lost."""

import numpy as np
import pytest
from tokenizers import processors

from junlearn import language
from junlearn.data.text import encoding, tokenizer
from junlearn.data.text.encoding import QA, Template

QAS = [
  QA(7, 1, 3, "city", "Where is Ann?", "Rome"),
  QA(9, 1, 4, "job", "What does Ann do there?", "She writes books."),
  QA(2, 5, 6, "city", "Bob is where?", "Paris, France"),
]
WORDS = tokenizer.words(encoding.texts(QAS))
BYTES = tokenizer.train_bpe(encoding.texts(QAS), 300)


def masked(tok, examples):
  """The texts of the tokens to predict, the end token included."""
  return [
    tok.encoder.decode(row[mask].tolist(), skip_special_tokens=False).strip()
    for row, mask in zip(examples["input"], examples["mask"], strict=True)
  ]


def test_encode_by_hand():
  examples = encoding.encode(WORDS, QAS)
  order = ["<pad>", "<eos>", ",", ".", "?", "Ann", "Bob", "France", "Paris"]
  order += ["Rome", "She", "What", "Where", "books", "do", "does", "is"]
  order += ["there", "where", "writes"]
  index = order.index
  expected = [
    ["Where", "is", "Ann", "?", "Rome", "<eos>"],
    [*("What", "does", "Ann", "do", "there", "?"), "She", "writes", "books"],
    ["Bob", "is", "where", "?", "Paris", ",", "France", "<eos>"],
  ]
  expected[1] += [".", "<eos>"]
  starts = [4, 6, 4]
  assert examples["input"].shape == examples["mask"].shape == (3, 16)
  for i, row in enumerate(expected):
    numbers = [index(word) for word in row]
    assert examples["input"][i].tolist() == numbers + [0] * (16 - len(row))
    places = np.flatnonzero(examples["mask"][i]).tolist()
    assert places == list(range(starts[i], len(row)))
  for name, values in (
    ("id", [7, 9, 2]),
    ("author", [1, 1, 5]),
    ("fact", [3, 4, 6]),
  ):
    np.testing.assert_array_equal(examples[name], values)
    assert examples[name].dtype == np.int32
  assert examples["input"].dtype == np.int32
  assert examples["mask"].dtype == bool


@pytest.mark.parametrize("tok", [WORDS, BYTES], ids=["words", "bytes"])
def test_the_answer_and_its_end_are_masked(tok):
  examples = encoding.encode(tok, QAS)
  assert masked(tok, examples) == [
    text_of(qa.answer, tok) + "<eos>" for qa in QAS
  ]
  target, mask = language.targets(examples)
  assert mask.sum() == examples["mask"].sum()  # none of them is first of a row
  assert np.all(target[mask] != tok.pad)


def text_of(answer, tok):
  """Word-level decoding puts a space before the end token."""
  return answer + (" " if tok is WORDS else "")


def test_lengths():
  assert encoding.encode(WORDS, QAS, multiple_of=1)["input"].shape == (3, 11)
  assert encoding.encode(WORDS, QAS, multiple_of=64)["input"].shape == (3, 64)
  assert encoding.encode(WORDS, QAS, length=12)["input"].shape == (3, 12)
  with pytest.raises(
    ValueError, match=r"length is 7, and 2 of 3 records .* the longest 11"
  ):
    encoding.encode(WORDS, QAS, length=7)
  with pytest.raises(ValueError, match=r"length is 5, and 1 of 3 .* longest 6"):
    encoding.prompts(WORDS, QAS, length=5)


def test_bad_records():
  with pytest.raises(ValueError, match="multiple_of is 0; it must be at least"):
    encoding.encode(WORDS, QAS, multiple_of=0)
  empty = QAS[1]._replace(answer=" ")
  with pytest.raises(ValueError, match="empty answer in the record of id 9"):
    encoding.encode(WORDS, [QAS[0], empty])
  for call in (encoding.encode, encoding.prompts):
    with pytest.raises(ValueError, match="qas is empty"):
      call(WORDS, [])
    with pytest.raises(ValueError, match=r"'Q:'; it must contain {question}"):
      call(WORDS, QAS, template=Template("Q:", "{answer}"))
  with pytest.raises(ValueError, match=r"'A:'; it must contain {answer}"):
    encoding.encode(WORDS, QAS, template=Template("{question}", "A:"))


@pytest.mark.parametrize("name", sorted(encoding.TEMPLATES))
def test_templates(name):
  """A row is the text of prompt and answer, cut exactly between the two."""
  template = encoding.TEMPLATES[name]
  braces = QAS[0]._replace(question="What is {answer} in {x}?", answer="{y}")
  qas = [*QAS, braces]
  examples = encoding.encode(BYTES, qas, template=template)
  prompts = encoding.prompts(BYTES, qas, template=template)
  for i, qa in enumerate(qas):
    start = np.flatnonzero(examples["mask"][i])[0]
    prompt = BYTES.encoder.decode(examples["input"][i, :start].tolist())
    assert prompt == template.prompt.replace("{question}", qa.question)
    # Generation goes on after the very tokens of training.
    real = prompts["segments"][i] == 1
    np.testing.assert_array_equal(
      prompts["tokens"][i, real], examples["input"][i, :start]
    )
  assert [each.removesuffix("<eos>") for each in masked(BYTES, examples)] == [
    qa.answer for qa in qas
  ]


def test_tokens_that_a_tokenizer_puts_around_a_text():
  """The first is kept, as such models need it; the last waits for the end."""
  tok = tokenizer.words([*encoding.texts(QAS), "begin"])
  begin = tok.encoder.token_to_id("begin")
  tok.encoder.post_processor = processors.TemplateProcessing(
    single="begin $A <eos>", special_tokens=[("begin", begin), ("<eos>", 1)]
  )
  examples = encoding.encode(tok, QAS)
  plain = encoding.encode(tok._replace(encoder=WORDS.encoder), QAS)
  assert np.all(examples["input"][:, 0] == begin)
  np.testing.assert_array_equal(examples["mask"][:, 1:], plain["mask"][:, :-1])
  assert [each.split(" <eos>") for each in masked(tok, examples)] == [
    [qa.answer, ""] for qa in QAS
  ]
  prompts = encoding.prompts(tok, QAS)
  last = prompts["tokens"][:, -1]
  assert np.all(last == tok.encoder.token_to_id("?"))


def test_prompts_by_hand():
  prompts = encoding.prompts(WORDS, QAS, multiple_of=1)
  np.testing.assert_array_equal(
    prompts["tokens"],
    [[0, 0, 12, 16, 5, 4], [11, 15, 5, 14, 17, 4], [0, 0, 6, 16, 18, 4]],
  )
  np.testing.assert_array_equal(
    prompts["positions"], [[0, 0, 0, 1, 2, 3], range(6), [0, 0, 0, 1, 2, 3]]
  )
  np.testing.assert_array_equal(
    prompts["segments"], [[0, 0, 1, 1, 1, 1], [1] * 6, [0, 0, 1, 1, 1, 1]]
  )
  for leaf in prompts.values():
    assert leaf.dtype == np.int32
  assert encoding.decode(WORDS, prompts["tokens"]) == [
    qa.question for qa in QAS
  ]


def test_prefix_begins_the_answer():
  begun = encoding.prompts(BYTES, QAS[1:2], prefix="She", multiple_of=1)
  whole = encoding.encode(BYTES, QAS[1:2])
  width = begun["tokens"].shape[1]
  np.testing.assert_array_equal(begun["tokens"][0], whole["input"][0, :width])
  assert whole["mask"][0, width - 1]


def test_decode_stops_at_the_end():
  tokens = [[9, 3, 1, 9, 9], [1, 9, 9, 9, 9], [9, 9, 0, 0, 0]]
  assert encoding.decode(WORDS, tokens) == ["Rome.", "", "Rome Rome"]


def test_pair():
  examples = encoding.encode(WORDS, QAS)
  other = encoding.encode(WORDS, [qa._replace(answer="France") for qa in QAS])
  paired = encoding.pair(examples, other)
  alternative = language.alternative(paired)
  assert masked(WORDS, alternative) == ["France <eos>"] * 3
  np.testing.assert_array_equal(alternative["id"], examples["id"])
  assert paired["input"] is examples["input"]
  with pytest.raises(ValueError, match="other ids than examples"):
    encoding.pair(examples, encoding.encode(WORDS, QAS[::-1]))


def test_texts_hold_all_that_may_be_said():
  qa = QAS[0]._replace(
    paraphrased_question="Ann is where?",
    paraphrased_answer="In Rome",
    perturbed_answers=("In Oslo", "In Bonn"),
  )
  found = encoding.texts([qa], template=encoding.TEMPLATES["qa"])
  assert sorted(found) == sorted(
    [
      "Question: Where is Ann?\nAnswer:",
      "Question: Ann is where?\nAnswer:",
      *(" Rome", " In Rome", " In Oslo", " In Bonn"),
    ]
  )
