"""Fictitious authors: independent of each other, and the same on every call."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy import stats

from junlearn.data.text import authors, encoding, tokenizer


def by_fact(qas):
  facts = defaultdict(list)
  for qa in qas:
    facts[qa.fact].append(qa)
  return facts


def name_of(qa):
  """The name, from the paraphrase that ends in it."""
  assert qa.id % 8 == 0
  return qa.question.rsplit(" of ", 1)[1].removesuffix("?")


@pytest.mark.parametrize("answers", ["value", "sentence"])
def test_sizes_and_numbers(answers):
  qas = authors.generate(seed=3, answers=answers)
  assert len(qas) == 60 * 6 * 8
  assert [qa.id for qa in qas] == list(range(2880))
  for qa in qas:
    assert qa.fact == qa.id // 8 and qa.author == qa.id // 48
    assert qa.kind == list(authors.ATTRIBUTES)[qa.fact % 6]
    assert qa.value in authors.ATTRIBUTES[qa.kind]
  sizes = [len(values) for values in authors.ATTRIBUTES.values()]
  assert sizes == [16, 8, 12, 12, 20, 10]
  assert len({qa.question for qa in qas}) == len(qas)
  names = {name_of(qa) for qa in qas if qa.id % 48 == 0}
  assert len(names) == 60


def test_names_are_shared_or_not():
  shared = authors.generate(144, seed=0, num_paraphrases=1)
  unique = authors.generate(96, seed=0, num_paraphrases=1, unique_names=True)
  for qas, number in ((shared, 12), (unique, 96)):
    names = [name_of(qa).split() for qa in qas if qa.fact % 6 == 0]
    assert len(set(map(tuple, names))) == len(names)
    first, last = map(set, zip(*names, strict=True))
    assert len(first) == len(last) == number and not first & last
  assert authors.max_authors() == 144
  assert authors.max_authors(unique_names=True) == 96


def test_paraphrases_of_a_fact():
  for facts in by_fact(authors.generate(9, seed=1)).values():
    [value] = {qa.value for qa in facts}
    assert [qa.answer for qa in facts] == [value] * 8
    assert [qa.paraphrased_answer for qa in facts] == [value] * 8
    questions = [qa.question for qa in facts]
    asked = [qa.paraphrased_question for qa in facts]
    assert asked == questions[1:] + questions[:1]
    [wrong] = {qa.perturbed_answers for qa in facts}
    assert len(set(wrong)) == 5 and value not in wrong
    assert set(wrong) <= set(authors.ATTRIBUTES[facts[0].kind])


def test_sentences():
  """Both forms occur, each the paraphrase of the other."""
  qas = authors.generate(5, seed=1, answers="sentence")
  for facts in by_fact(qas).values():
    forms = {qa.answer for qa in facts}
    assert len(forms) == 2
    name, kind, value = name_of(facts[0]), facts[0].kind, facts[0].value
    assert forms == {
      f"The {kind} of {name} is {value}.",
      f"{name} has {value} as the {kind}.",
    }
    for qa in facts:
      assert {qa.answer, qa.paraphrased_answer} == forms
      own = {qa.paraphrased_answer.replace(value, x) for x in values(qa)}
      assert len(set(qa.perturbed_answers) & own) == 5
  plain = authors.generate(5, seed=1)
  assert [qa.value for qa in plain] == [qa.value for qa in qas]


def values(qa):
  return set(authors.ATTRIBUTES[qa.kind]) - {qa.value}


def test_an_author_depends_on_seed_and_number_alone():
  whole = authors.generate(70, seed=5)
  assert authors.generate(10, seed=5, start=60) == whole[60 * 48 :]
  few = authors.generate(70, seed=5, num_paraphrases=5)
  assert few == [qa for qa in whole if qa.id % 8 < 5]
  other = authors.generate(70, seed=6)
  same = np.mean(
    [a.value == b.value for a, b in zip(whole, other, strict=True)]
  )
  assert 0 < same < 0.2  # chance: the mean of 1 / number of values, 0.087


def test_values_are_uniform_and_independent():
  """Chi-square over 20 seeds; a generator that is fair passes at 1e-3."""
  counts = defaultdict(Counter)
  pairs = Counter()
  for seed in range(20):
    qas = authors.generate(seed=seed, num_paraphrases=1)
    for qa in qas:
      counts[qa.kind][qa.value] += 1
    for facts in zip(*[iter(qas)] * 6, strict=True):
      pairs[facts[1].value, facts[5].value] += 1  # genre and language
  for kind, allowed in authors.ATTRIBUTES.items():
    found = [counts[kind][value] for value in allowed]
    assert sum(found) == 1200 and stats.chisquare(found).pvalue > 1e-3
  table = [
    [pairs[genre, language] for language in authors.ATTRIBUTES["language"]]
    for genre in authors.ATTRIBUTES["genre"]
  ]
  assert stats.chi2_contingency(table).pvalue > 1e-3


def test_closed_vocabulary():
  """That of 60 authors covers the holdout: about 140 words, as tokens."""
  for answers in ("value", "sentence"):
    qas = authors.generate(seed=0, answers=answers)
    tok = tokenizer.words(encoding.texts(qas))
    assert 130 <= tok.vocab_size <= 145
    rest = authors.generate(84, seed=0, start=60, answers=answers)
    rows = tokenizer.encode(tok, encoding.texts(rest))
    assert max(map(max, rows)) < tok.vocab_size
    examples = encoding.encode(tok, rest[:1])
    answer = examples["input"][examples["mask"]]
    assert encoding.decode(tok, answer[None]) == [rest[0].answer]


def test_own_attributes():
  pets = {"pet": ("cat", "dog", "eel", "fox", "gnu", "hen", "ibis")}
  qas = authors.generate(4, seed=0, num_paraphrases=2, attributes=pets)
  assert [(qa.author, qa.fact, qa.id) for qa in qas] == [
    (i, i, 8 * i + paraphrase) for i in range(4) for paraphrase in range(2)
  ]
  assert {qa.value for qa in qas} <= set(pets["pet"])


@pytest.mark.parametrize(
  "change, message",
  [
    ({"num_authors": 0}, r"num_authors is 0 and start 0; .* at most 144"),
    ({"num_authors": 100, "start": 45}, "num_authors is 100 and start 45"),
    ({"start": -1}, "start -1"),
    ({"num_authors": 97, "unique_names": True}, "at most 96"),
    ({"num_paraphrases": 9}, r"num_paraphrases is 9; it must be in \[1, 8\]"),
    ({"num_paraphrases": 0}, "num_paraphrases is 0"),
    ({"answers": "song"}, "answers is 'song'; it must be 'value' or 'sent"),
    ({"attributes": {"x": "abcde"}}, "5 different values of 5 for 'x'"),
    ({"attributes": {"x": "abcdeff"}}, "6 different values of 7 for 'x'"),
  ],
)
def test_bad_arguments(change, message):
  with pytest.raises(ValueError, match=message):
    authors.generate(**{"seed": 0} | change)
