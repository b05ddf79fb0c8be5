"""Negative examples: the questions of facts with answers that are not true."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from junlearn import validate
from junlearn.data.text.encoding import QA

REFUSALS = ("I do not know.",)


def build(
  qas: Sequence[QA],
  *,
  mode: Literal["counterfactual", "refusal", "contradict", "soft"] = (
    "counterfactual"
  ),
  seed: int,
  pool: Iterable[QA] | None = None,
  refusals: Sequence[str] = REFUSALS,
  num_draws: int = 4,
) -> list[QA]:
  """The records with other answers, the same for all paraphrases of a fact.

  - "counterfactual": another value of the same kind, drawn once for each fact.
  - "soft": `num_draws` of them for each fact, all different, so that what is
    learnt is a spread over values; the records follow each other draw by draw
    and keep their ids.
  - "refusal": one of `refusals`.
  - "contradict": the true value with "not" before it, which still holds it.

  Values of a kind are those in `pool`. A record without a kind, or of a kind of
  which no other value is known, takes one of its own perturbed answers instead.

  Args:
    qas: records to forget.
    mode: see above.
    seed: of NumPy's generator, at least 0.
    pool: records whose values may be taken; None means `qas` themselves, which
      is little where they are of one author.
    refusals: at least one answer.
    num_draws: of "soft", at least 1.

  Returns:
    Records with other `answer` and `value`; the paraphrased answer is changed
    likewise, or "" where that cannot be, and there are no perturbed answers.

  Raises:
    ValueError: if an argument is out of range, no wrong answer is left for a
      fact, or a record's answer does not contain its value.

  **Guarantees**: a value that is drawn is never the true one, nor that of
  another fact of the same author in `qas` or `pool`; facts take turns in random
  order, and each takes a value that has been used least so far, of those that
  it may take. Perturbed answers are as good as the records say.

  Source: Y. Liu et al., "LUNE", arXiv 2512.07375, asks for negatives; how they
  are built is this library's choice.
  """
  rng = np.random.default_rng(seed)
  if mode == "refusal":
    if not refusals:
      raise ValueError("refusals is empty; one answer is the least.")
    drawn = {
      qa.fact: refusals[int(rng.integers(len(refusals)))] for qa in _facts(qas)
    }
    return [_answered(qa, drawn[qa.fact]) for qa in qas]
  if mode == "contradict":
    return [_revalued(qa, f"not {_value(qa)}") for qa in qas]
  if mode not in ("counterfactual", "soft"):
    raise ValueError(
      f"mode is {mode!r}; it must be 'counterfactual', 'refusal', 'contradict' "
      "or 'soft'."
    )
  validate.at_least(1, num_draws=num_draws)
  options = _options(qas, [*qas, *(pool or ())])
  draws = _draws(rng, options, num_draws if mode == "soft" else 1)
  return [_replaced(qa, draw[qa.fact]) for draw in draws for qa in qas]


def _options(qas, known):
  """What each fact may be answered with: values or, else, perturbed answers.

  The latter are given by their number, since every paraphrase has words of its
  own.
  """
  values: dict[str, set[str]] = {}
  true: dict[int, set[str]] = {}
  for qa in known:
    values.setdefault(qa.kind, set()).add(_value(qa))
    true.setdefault(qa.author, set()).add(_value(qa))
  return {
    qa.fact: (qa.kind, sorted(values[qa.kind] - true[qa.author]))
    if qa.kind and values[qa.kind] - true[qa.author]
    else (qa.fact, range(len(qa.perturbed_answers)))
    for qa in _facts(qas)
  }


def _draws(rng, options, num_draws):
  """One option for each fact, and so again with those that are left."""
  used: Counter = Counter()
  draws: list[dict] = []
  for _ in range(num_draws):
    draw = {}
    for fact in rng.permutation(list(options)).tolist():
      group, allowed = options[fact]
      left = [each for each in allowed if each not in {d[fact] for d in draws}]
      if not left:
        raise ValueError(
          f"qas has the fact {fact}, with {len(allowed)} wrong answers for "
          f"{num_draws} draws; pool or its perturbed_answers must give more."
        )
      least = min(used[group, each] for each in left)
      left = [each for each in left if used[group, each] == least]
      draw[fact] = left[rng.integers(len(left))]
      used[group, draw[fact]] += 1
    draws.append(draw)
  return draws


def _facts(qas):
  """One record of each fact, the first."""
  return {qa.fact: qa for qa in reversed(qas)}.values()


def _value(qa):
  return qa.value or qa.answer


def _replaced(qa, option):
  if isinstance(option, str):
    return _revalued(qa, option)
  return _answered(qa, qa.perturbed_answers[option])


def _answered(qa, answer):
  return qa._replace(
    answer=answer, paraphrased_answer="", perturbed_answers=(), value=""
  )


def _revalued(qa, value):
  """The record with another value where its own stands in the answers."""
  own = re.compile(rf"(?<!\w){re.escape(_value(qa))}(?!\w)")
  if not own.search(qa.answer):
    raise ValueError(
      f"qas has the value {qa.value!r} in the record of id {qa.id}, which is "
      "not in its answer."
    )
  return qa._replace(
    answer=own.sub(lambda _: value, qa.answer),
    paraphrased_answer=own.sub(lambda _: value, qa.paraphrased_answer)
    if own.search(qa.paraphrased_answer)
    else "",
    perturbed_answers=(),
    value=value,
  )
