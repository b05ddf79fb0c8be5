"""A small TOFU: its corpus, its requests, and methods at a learning rate.

100 invented people with 5 attributes, asked in 4 ways and answered in
sentences. A request names one question about each fact of a tenth of them; the
others are held out. Each fact is one value of the truth ratio, so that the
forget quality is a test of independent values.

Which of two sentences answers a question is drawn at random: where the question
tells it, no model is ever taught to go on with the other one, and the truth
ratio, which is of the other one, is noise.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.language import corpora
from experiments.language.attacks import Effort
from experiments.language.corpora import Corpus
from experiments.language.methods import METHODS, Variant
from experiments.language.recipe import Recipe
from experiments.language.study import Study
from experiments.language.tasks import Asked, Task
from experiments.run import tuning
from experiments.run.session import Outcome
from experiments.run.study import Evidence
from junlearn.audit.text import memory, truth
from junlearn.data.text import authors
from junlearn.data.text.encoding import QA

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)  # one grid for all methods
COMMON_RATE = 1e-3  # at which untuned methods are compared
TUNING_SEED = 1000
_ATTRIBUTES = 5
_PARAPHRASES = 4
_OTHER = 100  # how far the seed of a second retrained model is from the first's


class Case(NamedTuple):
  """One seed: its request and its models; the tuning seed has no others."""

  seed: int
  task: Task
  original: Any
  retrained: Any = None
  other: Any = None


def study(num_authors: int, steps: int, unlearn_steps: int) -> Study:
  """The invented people, and how models are trained.

  Relearning ends after two epochs; the control, a model retrained without the
  facts, has a fifth of them by then. Answers have some 9 tokens, between the
  few for which NPO's beta is 1 and the 40 for which it is 0.1.
  """
  recipe = Recipe(
    steps=steps,
    unlearn_steps=unlearn_steps,
    unlearn_batch_size=25,
    beta=0.5,
    relearn_learning_rate=1e-3,
  )
  return Study(
    corpus(num_authors),
    recipe,
    asked=Asked(request=("fraction",)),
    effort=Effort(relearn_steps=(1, 2, 4), bits=(8, 4)),
  )


def corpus(num_authors: int) -> Corpus:
  """The invented people; as many as a tenth of them more are unseen."""
  kinds = itertools.islice(authors.ATTRIBUTES.items(), _ATTRIBUTES)
  made = corpora.fictitious(
    num_authors,
    answers="sentence",
    num_paraphrases=_PARAPHRASES,
    attributes=dict(kinds),
    named=1,
  )
  rng = np.random.default_rng(0)
  return made._replace(
    trained=_mixed(made.trained, rng), unseen=_mixed(made.unseen, rng)
  )


def _mixed(qas: Sequence[QA], rng: np.random.Generator) -> tuple[QA, ...]:
  """Some paraphrases answered as the next one, whose sentence differs."""

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
    (task,) = study.tasks(seed)
    original = study.train(None, seed).params
    if not references:
      return Case(seed, task, original)
    retrained, other = (
      study.train(task, start).params for start in (seed, seed + _OTHER)
    )
    return Case(seed, task, original, retrained, other)

  def unlearn(
    self,
    case: Case,
    method: str,
    rate: float,
    *,
    name: str = "",
    **options: Any,
  ) -> Outcome:
    """A method with its usual view after all its steps.

    Args:
      case: what is forgotten, and by which model.
      method: key of `METHODS`.
      rate: of learning.
      name: of the phase, if it is not the method's.
      **options: of `Study.apply`.
    """
    return self.study.apply(
      f"{name or method}-{rate:g}",
      case.seed,
      Variant(method, METHODS[method].view),
      case.original,
      case.task,
      learning_rate=rate,
      **options,
    )

  def audit(self, case: Case, params: Any, target: Evidence | None) -> Evidence:
    """All that is measured of a model, beside the retrained one's."""
    return self.study.evidence(
      params,
      case.task,
      seed=case.seed,
      original=case.original,
      target=target,
    )

  def knowledge(
    self, case: Case, params: Any
  ) -> tuple[dict[str, float], float]:
    """What is known of each part, and how much is forgotten ("Mem")."""
    params = self.study.plain(params)
    scores = self.study.token_scores(params, case.task)
    found = self.study.knowledge(params, case.task, scores)
    forgotten = truth.forgetting(
      extraction=found.metrics["extraction_strength"],
      exact=found.metrics["exact_memorization"],
      paraphrased=float(memory.probability(scores["forget/right"]).mean()),
      truth=truth.truth_share(found.arrays["truth/forget"]),
    )
    return found.metrics, forgotten

  def tune(self, methods: tuple[str, ...]) -> dict[str, float]:
    """For each method the rate of the best score on the tuning seed.

    The score is the harmonic mean of "Mem" and the model utility over that of
    the original, at most 1. It knows neither the retrained model nor what
    attackers find.
    """
    case = self.case(TUNING_SEED, references=False)
    utility = self.knowledge(case, case.original)[0]["model_utility"]

    def loss(method):
      def of_rate(rate, case):
        params = self.unlearn(case, method, rate).params
        metrics, forgotten = self.knowledge(case, params)
        kept = min(metrics["model_utility"] / utility, 1.0)
        return -truth.model_utility([forgotten, kept])

      return of_rate

    return {
      method: tuning.best(loss(method), RATES, [case]) for method in methods
    }


def median(values) -> float:
  """Over seeds; NaN if one is."""
  return float(np.median(list(values)))
