"""Negatives are wrong, spread over the values, and one for all paraphrases."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junlearn.data.text import authors, negatives
from junlearn.data.text.encoding import QA

TOWN = QA(0, 0, 0, "town", "Where?", "It is Ulm, Ulm!", value="Ulm")


def facts_of(qas):
  found = defaultdict(set)
  for qa in qas:
    found[qa.fact].add(qa.value or qa.answer)
  return found


@given(
  st.integers(1, 12),
  st.integers(1, 3),
  st.sampled_from(["value", "sentence"]),
  st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=40)
def test_counterfactuals(num_authors, num_paraphrases, answers, seed):
  """Against the records that they are made of, whatever the sizes."""
  pool = authors.generate(12, seed=1, answers=answers)
  qas = authors.generate(
    num_authors, seed=1, num_paraphrases=num_paraphrases, answers=answers
  )
  found = negatives.build(qas, seed=seed, pool=pool)
  assert found == negatives.build(qas, seed=seed, pool=pool)
  told = defaultdict(set)
  for qa in pool:
    told[qa.author].add(qa.value)
  for qa, negative in zip(qas, found, strict=True):
    for key in ("id", "author", "fact", "kind", "question"):
      assert getattr(negative, key) == getattr(qa, key)
    assert negative.value in authors.ATTRIBUTES[qa.kind]
    assert negative.value not in told[qa.author]
    # Nothing but the value is other than it was.
    for key in ("answer", "paraphrased_answer"):
      changed = getattr(negative, key)
      assert qa.value not in changed and changed.count(negative.value) == 1
      assert changed.replace(negative.value, qa.value) == getattr(qa, key)
    assert negative.perturbed_answers == ()
  assert all(len(each) == 1 for each in facts_of(found).values())


@pytest.mark.parametrize("seed", range(5))
def test_counterfactuals_are_balanced(seed):
  """A value that is barred for some facts only is used about as often."""
  qas = authors.generate(seed=seed, num_paraphrases=1)
  found = negatives.build(qas, seed=seed)
  for kind in authors.ATTRIBUTES:
    counts = Counter(qa.value for qa in found if qa.kind == kind)
    known = {qa.value for qa in qas if qa.kind == kind}
    used = [counts[value] for value in known]
    # Independent draws would differ by more: their deviation is 1.7 to 2.6.
    assert sum(used) == 60 and max(used) - min(used) <= 2
  few = negatives.build(qas[:36], seed=seed, pool=qas)
  for kind in authors.ATTRIBUTES:
    chosen = [qa.value for qa in few if qa.kind == kind]
    assert len(set(chosen)) == 6  # of six authors, no two alike


def test_counterfactuals_vary_with_the_seed():
  qas = authors.generate(10, seed=0, num_paraphrases=1)
  values = {
    tuple(qa.value for qa in negatives.build(qas, seed=seed, pool=qas))
    for seed in range(5)
  }
  assert len(values) == 5


def test_every_wrong_value_can_be_drawn():
  qas = authors.generate(30, seed=0, num_paraphrases=1)
  drawn = {
    negatives.build(qas[1:2], seed=seed, pool=qas)[0].value
    for seed in range(100)
  }
  known = {qa.value for qa in qas if qa.kind == "genre"}
  assert drawn == known - {qas[1].value}


def test_other_facts_of_the_author_are_barred():
  """Both of a pair of towns; the third town is all that is left."""
  towns = [
    QA(i, author, i, "town", f"q{i}", town)
    for i, (author, town) in enumerate([(0, "Ulm"), (0, "Bonn"), (1, "Jena")])
  ]
  found = negatives.build(towns, seed=0)
  assert [qa.answer for qa in found[:2]] == ["Jena", "Jena"]
  assert found[2].answer in ("Ulm", "Bonn")


def test_without_other_values_a_perturbed_answer_is_taken():
  """One author knows no other values; all paraphrases agree on which answer."""
  qas = authors.generate(1, seed=0, answers="sentence")
  found = negatives.build(qas, seed=0)
  numbers = defaultdict(set)
  for qa, negative in zip(qas, found, strict=True):
    numbers[qa.fact].add(qa.perturbed_answers.index(negative.answer))
    assert negative.paraphrased_answer == "" == negative.value
  assert all(len(each) == 1 for each in numbers.values())
  assert len(set().union(*numbers.values())) > 1
  tofu = QA(5, 2, 5, "", "Who?", "Ann.", perturbed_answers=("Bob.", "Eve."))
  other = tofu._replace(id=6, fact=6, answer="Max.")
  [first, _] = negatives.build([tofu, other], seed=0)
  assert first.answer in ("Bob.", "Eve.")  # and not "Max."
  bare = tofu._replace(perturbed_answers=())
  with pytest.raises(ValueError, match=r"fact 5, with 0 wrong answers for 1"):
    negatives.build([bare], seed=0)


def test_soft():
  qas = authors.generate(6, seed=0, num_paraphrases=2)
  found = negatives.build(qas, mode="soft", seed=0, num_draws=3)
  assert [qa.id for qa in found] == [qa.id for qa in qas] * 3
  truth = facts_of(qas)
  for fact, values in facts_of(found).items():
    assert len(values) == 3 and not values & truth[fact]
  for start in range(0, len(found), len(qas)):
    draw = found[start : start + len(qas)]
    assert all(len(each) == 1 for each in facts_of(draw).values())
  with pytest.raises(ValueError, match=r"5 wrong answers for 6 draws"):
    negatives.build(qas[:2], mode="soft", seed=0, num_draws=6)


def test_refusal():
  qas = authors.generate(20, seed=0, num_paraphrases=3)
  assert {qa.answer for qa in negatives.build(qas, mode="refusal", seed=0)} == {
    "I do not know."
  }
  refusals = ["No idea.", "Who knows?", "Sorry."]
  found = negatives.build(qas, mode="refusal", seed=0, refusals=refusals)
  assert all(len(each) == 1 for each in facts_of(found).values())
  counts = Counter(qa.answer for qa in found)
  assert set(counts) == set(refusals) and min(counts.values()) > 60
  assert [qa.question for qa in found] == [qa.question for qa in qas]


def test_contradict():
  whole = TOWN._replace(id=1, fact=1, answer="Ulm", value="")
  found = negatives.build([TOWN, whole], mode="contradict", seed=0)
  assert [qa.answer for qa in found] == ["It is not Ulm, not Ulm!", "not Ulm"]


def test_only_whole_words_are_replaced():
  qa = TOWN._replace(answer="Ulmer of AltUlm is from Ulm.")
  other = TOWN._replace(id=1, author=1, fact=1, answer="Bonn", value="Bonn")
  [first, _] = negatives.build([qa, other], seed=0)
  assert first.answer == "Ulmer of AltUlm is from Bonn."
  backslash = other._replace(answer=r"\1", value=r"\1")
  [first, _] = negatives.build([qa, backslash], seed=0)
  assert first.answer == r"Ulmer of AltUlm is from \1."


@pytest.mark.parametrize(
  "change, message",
  [
    ({"mode": "lie"}, "mode is 'lie'; it must be 'counterfactual'"),
    ({"mode": "refusal", "refusals": []}, "refusals is empty"),
    ({"mode": "soft", "num_draws": 0}, "num_draws is 0; it must be at least 1"),
    (
      {"qas": [TOWN._replace(value="Bonn")], "mode": "contradict"},
      "value 'Bonn' in the record of id 0, which is not in its answer",
    ),
  ],
)
def test_bad_arguments(change, message):
  with pytest.raises(ValueError, match=message):
    negatives.build(**{"qas": [TOWN], "seed": 0} | change)
