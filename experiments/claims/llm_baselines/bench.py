"""A small TOFU: its corpus, its requests, and methods at a learning rate.

100 invented people with 5 attributes, asked in 4 ways and answered in
sentences. A request names one question about each fact of a tenth of them; the
others are held out. Each fact is one value of the truth ratio, so that the
forget quality is a test of independent values.

Which of two sentences answers a question is drawn at random: where the question
tells it, no model is ever taught to go on with the other one, and the truth
ratio, which is of the other one, is noise.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.language import audit as language_audit
from experiments.language import tasks as language_tasks
from experiments.language.audit import Evidence
from experiments.language.study import Recipe, Study
from experiments.language.tasks import Corpus, Task
from experiments.run.session import Outcome
from junlearn.audit.text import memory, truth
from junlearn.data.text import authors
from junlearn.data.text.encoding import QA
from junlearn.loop import NonFiniteError
from junlearn.nn.text import transformer

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)  # one grid for all methods
COMMON_RATE = 1e-3  # at which untuned methods are compared
TUNING_SEED = 1000
_FRACTION = 0.1
_ATTRIBUTES = 5
_PHRASINGS = 4
_OTHER = 100  # how far the seed of a second retrained model is from the first's


class Case(NamedTuple):
  """One seed: its request and its models; the tuning seed has no others."""

  seed: int
  task: Task
  original: Any
  retrained: Any = None
  other: Any = None


def recipe(steps: int, unlearn_steps: int) -> Recipe:
  """How models are trained; relearning ends after two epochs.

  The control, a model retrained without the facts, has a fifth of them by then.
  Answers have some 9 tokens, between the few for which NPO's beta is 1 and the
  40 for which it is 0.1.
  """
  return Recipe(
    steps=steps,
    unlearn_steps=unlearn_steps,
    unlearn_batch_size=25,
    beta=0.5,
    relearn_steps=(1, 2, 4),
    relearn_learning_rate=1e-3,
    bits=(8, 4),
  )


def corpus(num_authors: int) -> Corpus:
  """The invented people; as many as a tenth of them more are unseen."""
  kinds = itertools.islice(authors.ATTRIBUTES.items(), _ATTRIBUTES)
  made = language_tasks.fictitious(
    num_authors,
    answers="sentence",
    num_phrasings=_PHRASINGS,
    attributes=dict(kinds),
    known=1,
  )
  rng = np.random.default_rng(0)
  return made._replace(
    trained=_mixed(made.trained, rng), unseen=_mixed(made.unseen, rng)
  )


def _mixed(qas: Sequence[QA], rng: np.random.Generator) -> tuple[QA, ...]:
  """Of every two phrasings of a fact, whose sentences differ, some swapped."""

  def answered(qa, as_in):
    names = ("answer", "paraphrased_answer", "perturbed_answers")
    return qa._replace(**{name: getattr(as_in, name) for name in names})

  pairs = zip(qas[::2], qas[1::2], strict=True)
  return tuple(
    qa
    for a, b in pairs
    for qa in ((answered(a, b), answered(b, a)) if rng.integers(2) else (a, b))
  )


class Bench:
  """Cases of a study, and methods on them."""

  def __init__(self, study: Study):
    self.study = study

  def case(self, seed: int, *, references: bool = True) -> Case:
    """A seed's request and models, all by the same schedule."""
    study = self.study
    facts = language_tasks.by_fraction(study.corpus, _FRACTION, seed)
    task = language_tasks.make(study.corpus, "fraction", facts, seed)
    original = study.train("original", seed).params
    if not references:
      return Case(seed, task, original)
    retrained, other = (
      study.train("retrain", start, task).params
      for start in (seed, seed + _OTHER)
    )
    return Case(seed, task, original, retrained, other)

  def unlearn(self, case: Case, method: str, rate: float) -> Outcome:
    """A method after all its steps."""
    return self.study.unlearn(
      f"{method}-{rate:g}",
      case.seed,
      case.task,
      case.original,
      method=method,
      learning_rate=rate,
    )

  def audit(
    self, case: Case, params: Any, retrained: Evidence | None
  ) -> Evidence:
    """All that is measured of a model, beside the retrained one's."""
    return self.study.audit(
      params,
      case.task,
      seed=case.seed,
      original=case.original,
      retrained=retrained,
    )

  def knowledge(
    self, case: Case, params: Any
  ) -> tuple[dict[str, float], float]:
    """What is known of each part, and how much is forgotten ("Mem")."""
    study = self.study
    by_part = language_audit.collect(
      study.corpus,
      transformer.model(study.config),
      study.plain(params),
      case.task,
    )
    metrics, arrays = language_audit.knowledge(by_part)
    said, _ = language_audit.say(
      study.corpus,
      study.decoder,
      study.plain(params),
      case.task,
      num_tokens=study.num_tokens,
    )
    metrics |= said
    metrics |= language_audit.tofu(metrics, arrays, None)
    forgotten = truth.forgetting(
      extraction=metrics["extraction_strength"],
      exact=metrics["exact_memorisation"],
      paraphrased=float(memory.probability(by_part["forget/right"]).mean()),
      truth=truth.truth_share(arrays["truth/forget"]),
    )
    return metrics, forgotten

  def tune(self, methods: tuple[str, ...]) -> dict[str, float]:
    """For each method the rate of the best score on the tuning seed.

    The score is the harmonic mean of "Mem" and the model utility over that of
    the original, at most 1. It knows neither the retrained model nor what
    attackers find.
    """
    case = self.case(TUNING_SEED, references=False)
    utility = self.knowledge(case, case.original)[0]["model_utility"]

    def score(method, rate):
      try:
        params = self.unlearn(case, method, rate).params
      except NonFiniteError:
        return -math.inf
      metrics, forgotten = self.knowledge(case, params)
      kept = min(metrics["model_utility"] / utility, 1.0)
      return truth.model_utility([forgotten, kept])

    return {
      method: max(RATES, key=functools.partial(score, method))
      for method in methods
    }


def median(values) -> float:
  """Over seeds; NaN if one is."""
  return float(np.median(list(values)))
