"""ROUGE-L against every common subsequence, and by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junlearn.audit.text import recall

short = st.lists(st.sampled_from("abcd"), max_size=7)


def longest_by_trial(a, b):
  """The longest of all subsequences of `a` that are subsequences of `b`."""

  def is_within(part):
    rest = iter(b)
    return all(word in rest for word in part)

  return max(
    size
    for size in range(len(a) + 1)
    if any(map(is_within, itertools.combinations(a, size)))
  )


@settings(deadline=None, max_examples=200)
@given(a=short, b=short)
def test_lcs_is_the_longest_common_subsequence(a, b):
  assert recall.lcs(a, b) == longest_by_trial(a, b)


def test_rouge_l_by_hand():
  scores = recall.rouge_l(
    ["The cat sat.", "...", "on, the MAT"],
    ["A cat sat down", "a cat", "on-the mat"],
  )
  np.testing.assert_allclose(scores.precision, [2 / 3, 0, 1])
  np.testing.assert_allclose(scores.recall, [2 / 4, 0, 1])
  np.testing.assert_allclose(scores.f1, [4 / 7, 0, 1])


def test_words_are_not_stemmed():
  assert recall.words("It's 2 Cats-cats") == ["it", "s", "2", "cats", "cats"]
  assert recall.rouge_l(["cat"], ["cats"]).f1 == 0


def test_bad_input():
  with pytest.raises(ValueError, match="generated has 1 texts"):
    recall.rouge_l(["a"], ["a", "b"])
  with pytest.raises(ValueError, match="1 texts without a word"):
    recall.rouge_l(["a", "b"], ["a", "?!"])
