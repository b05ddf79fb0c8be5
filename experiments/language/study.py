"""Training, unlearning and auditing a language model, phase by phase.

Shared by the main job (`experiments.language`) and the claims.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language import (
  attacks,
  evaluation,
  figures,
  knowledge,
  metrics,
  tasks,
  transforms,
)
from experiments.language.attacks import Effort
from experiments.language.corpora import Corpus
from experiments.language.methods import METHODS, VARIANTS, Variant
from experiments.language.recipe import Recipe
from experiments.language.tasks import Asked, Task
from experiments.run import study
from experiments.run.findings import REFERENCES, Findings
from experiments.run.session import Outcome
from experiments.run.study import Case, Evidence
from junlearn import language, report
from junlearn.audit import relearn
from junlearn.audit.text.scores import TokenScores
from junlearn.nn.text import transformer
from junlearn.parallel.sharding import Layout
from junlearn.report import blocks
from junlearn.transform import Request, Transform, stage_key

_DATA = {"authors": "authors", "tofu": "authors of TOFU"}
_TITLES = {
  "author": "One author",
  "fraction": "Several authors",
  "authors": "Chosen authors",
  "questions": "Chosen questions",
}
_NAMED = {
  "author": "all facts of one author",
  "fraction": "all facts of some authors",
  "authors": "all facts of these authors",
  "questions": "what these records ask",
}


class Study(study.Study[Task]):
  """One corpus, one recipe; every training is a phase of the session.

  Args:
    corpus: what models are trained on.
    recipe: how.
    asked: what is to be forgotten.
    rates: learning rates of methods, where they are not the usual ones.
    effort: how far attacks go.
    start: config and params of a checkpoint that training starts from; None
      for a fresh decoder of the recipe's sizes.
    layout: where params and batches lie, if on several devices.

  Raises:
    ValueError: if the decoder does not fit its sizes or the corpus.
  """

  METRICS = metrics.METRICS
  NOT_PROVEN = metrics.NOT_PROVEN

  def __init__(
    self,
    corpus: Corpus,
    recipe: Recipe,
    *,
    asked: Asked = Asked(),  # noqa: B008  immutable
    rates: Mapping[str, float] | None = None,
    effort: Effort = Effort(),  # noqa: B008
    start: tuple[transformer.Config, Any] | None = None,
    layout: Layout | None = None,
  ):
    self.corpus, self.recipe, self.effort = corpus, recipe, effort
    self.config = transforms.configure(corpus, recipe, start)
    self.plain_model = transformer.model(self.config)
    self._asked, self._rates = asked, rates or {}
    self._start, self._layout = start and start[1], layout
    self.model = recipe.adapters.model(self.plain_model)
    self.decoder = transformer.decoder(self.config)
    self.abstract = jax.eval_shape(
      self.plain_model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
    )

  @property
  def title(self) -> str:
    """Of the report."""
    return f"Forgetting {_DATA[self.corpus.name]} in a language model"

  def tasks(self, seed: int) -> list[Task]:
    """The requests of a seed, with arrays of the same shapes."""
    return tasks.of_seed(self.corpus, self._asked, seed)

  def steps(self, name: str, task: Task) -> int:
    """Steps of one model, see `study.Study`."""
    del task
    if name in REFERENCES:
      return self.recipe.steps
    return 0 if name == "shared" else self.recipe.unlearn_steps

  def train(self, task: Task | None, seed: int) -> Outcome:
    """The model without what the task forgets; for None, on everything.

    Both take the same steps, from the same fresh params or the checkpoint.
    """
    request = tasks.all_of(self.corpus) if task is None else task.request
    name = "original" if task is None else f"{task.name}/retrain"
    key = stage_key(jax.random.key(seed), "train")
    transform, start = self._trainer(), self._start
    return self.session.phase(
      f"seed{seed}/{name}",
      lambda: transform(key, start, request._replace(forget=None)),
      start=self.abstract if start is None else start,
      steps=self.recipe.steps,
    )

  @functools.cache  # noqa: B019  one study lives as long as the run
  def _trainer(self) -> Transform:
    return transforms.trainer(
      self.model,
      self.recipe,
      fresh=self._start is None,
      layout=self._layout,
      loop=self.session.loop,
    )

  def check(self, names: Sequence[str]) -> None:
    """Makes all that a run needs, to no other end than to find what is wrong.

    Args:
      names: of `VARIANTS`.

    Raises:
      ValueError: if the recipe's adapters find no place in the decoder, or a
        method or its descent refuses a number.
    """
    layout = self._layout
    jax.eval_shape(self.recipe.adapters.init, jax.random.key(0), self.abstract)
    transforms.trainer(
      self.model, self.recipe, fresh=self._start is None, layout=layout
    )
    for name in names:
      transforms.unlearner(
        self.model, self.config, self.recipe, VARIANTS[name], 0.0, layout=layout
      )

  def unlearn(self, method: str, case: Case[Task]) -> Outcome:
    """What a method makes of the original model."""
    variant = VARIANTS[method]
    return self.apply(
      f"{case.task.name}/{method}",
      case.seed,
      variant,
      case.original.params,
      case.task,
      learning_rate=self._rates.get(variant.method),
    )

  def apply(
    self,
    name: str,
    seed: int,
    variant: Variant,
    params: Any,
    task: Task,
    *,
    learning_rate: float | None = None,
    evaluate: Callable[[Any], tuple[float, ...]] | None = None,
    **options: Any,
  ) -> Outcome:
    """The phase of a method, from the given params.

    Its curve has what `evaluate` measures. The outcome's params have adapters
    where the view is "lora" (`plain` merges them).

    Args:
      name: of the phase, unique for the seed.
      seed: of batches and adapters.
      variant: method and view.
      params: of the original model.
      task: what to forget.
      learning_rate: None for the method's.
      evaluate: `params -> values`; None for `tracker`.
      **options: of the method and of `descent.descend`, such as `num_steps`.
    """
    if learning_rate is None:
      learning_rate = METHODS[variant.method].rates[variant.view]
    transform = self._unlearner(
      variant, learning_rate, tuple(sorted(options.items()))
    )
    key = stage_key(jax.random.key(seed), "unlearn")
    if variant.view == "lora":
      params = self.recipe.adapters.init(stage_key(key, "adapters"), params)
    request = self._request(variant.method, task)
    num_steps = options.get("num_steps", self.recipe.unlearn_steps)
    return self.session.phase(
      f"seed{seed}/{name}",
      lambda: transform(key, params, request),
      start=params,
      steps=num_steps,
      evaluate=evaluate or self.tracker(task),
      note=functools.partial(_steps_taken, num_steps),
    )

  @functools.cache  # noqa: B019
  def _unlearner(
    self,
    variant: Variant,
    learning_rate: float,
    options: tuple[tuple[str, Any], ...],
  ) -> Transform:
    """A method's transform, made once so that requests share its program."""
    return transforms.unlearner(
      self.model,
      self.config,
      self.recipe,
      variant,
      learning_rate,
      **{"layout": self._layout, "loop": self.session.loop, **dict(options)},
    )

  def _request(self, method: str, task: Task) -> Request:
    """What a method reads of a task."""
    entry, request = METHODS[method], task.request
    if entry.answers is None:
      return request
    answers = task.alternatives[entry.answers]
    if entry.in_extra:
      return request._replace(extra=answers, retain=None)
    other = {name: answers[name] for name in ("input", "mask")}
    return request._replace(forget={**request.forget, "alternative": other})

  def plain(self, params: Any) -> Any:
    """The params with their adapters, if any, merged."""
    if "lora" in params:
      return self.recipe.adapters.merge(params)
    return params

  def tracker(
    self, task: Task, parts: Sequence[str] = ("heldout", "retain")
  ) -> Callable[[Any], tuple[float, ...]]:
    """Accuracies on some records of the parts of a task."""
    asked = evaluation.small_batch(
      self.corpus, {name: task.parts[name] for name in parts}
    )

    def evaluate(params):
      right = evaluation.accuracies(self.model, params, asked)
      return tuple(right[name] for name in parts)

    return evaluate

  def audit(self, method: str, outcome: Outcome, case: Case[Task]) -> Evidence:
    """Everything that is measured of a model."""
    return self.evidence(
      outcome.params,
      case.task,
      seed=case.seed,
      original=None if method in REFERENCES else case.original.params,
      target=case.target,
    )

  def evidence(
    self,
    params: Any,
    task: Task,
    *,
    seed: int,
    original: Any = None,
    target: Evidence | None = None,
  ) -> Evidence:
    """The same of params.

    Args:
      params: the model's.
      task: what was to be forgotten.
      seed: of the attacker.
      original: params of the original model, for what quantization maps to
        it; None leaves this out.
      target: of the retrained model; None if this is it.
    """
    params = self.plain(params)
    scores = self.token_scores(params, task)
    return metrics.together(
      self.knowledge(params, task, scores, target),
      attacks.membership(scores, task, target),
      self.relearned(params, task, seed, target),
      attacks.quantization(
        self.corpus,
        self.plain_model,
        params,
        task,
        bits=self.effort.bits,
        original=original,
      ),
    )

  def token_scores(self, params: Any, task: Task) -> dict[str, TokenScores]:
    """Of all parts of a task; params without adapters."""
    return evaluation.token_scores(self.corpus, self.plain_model, params, task)

  def knowledge(
    self,
    params: Any,
    task: Task,
    scores: Mapping[str, TokenScores],
    target: Evidence | None = None,
  ) -> Evidence:
    """What the model remembers and generates, and TOFU's metrics of both."""
    found = metrics.together(
      knowledge.remembered(scores, graded=self.corpus.graded),
      knowledge.generated(
        self.corpus, self.decoder, params, task, num_tokens=self._num_tokens
      ),
    )
    return metrics.together(found, knowledge.tofu(found, target))

  def relearned(
    self, params: Any, task: Task, seed: int, target: Evidence | None = None
  ) -> Evidence:
    """What an attacker brings back; params without adapters."""
    return attacks.relearning(
      self.corpus,
      self.plain_model,
      self._attacker,
      params,
      task,
      seed=seed,
      target=target,
    )

  @functools.cached_property
  def _attacker(self) -> relearn.Attack:
    """Who relearns; the same for all models."""
    return relearn.relearn(
      language.cross_entropy(self.plain_model),
      transforms.adam(self.recipe.relearn_learning_rate),
      steps=self.effort.relearn_steps,
      batch_size=self.recipe.unlearn_batch_size,
    )

  @functools.cached_property
  def _num_tokens(self) -> int:
    """Of the longest answer."""
    mask = self.corpus.encode(self.corpus.trained)["mask"]
    return int(mask.sum(axis=1).max())

  def deletion(self, tasks: Sequence[Task]) -> report.Deletion:
    """A request as the page tells it."""
    first = tasks[0]
    return report.Deletion(
      ids=[qa.id for qa in first.records],
      total=len(self.corpus.trained),
      selection="The paraphrases that a request names of "
      f"{_NAMED[first.name]}, first seed. Retraining goes without all records "
      "that ask for these facts, in other paraphrases too.",
      noun="records",
    )

  def chapter(self, name: str) -> str:
    """What the page calls a request."""
    return _TITLES[name]

  def figures(self, findings: Findings) -> list[Any]:
    """The way there, attacks, truth, relearning and quantization."""
    return figures.of_request(findings, bits=self.effort.bits)

  def sections(self, findings: Findings) -> list[Any]:
    """Generated answers."""
    samples = figures.long_samples if self.corpus.graded else figures.samples
    return [blocks.Section("What the models answer", samples(findings))]


def _steps_taken(num_steps: int, info: Any) -> dict[str, float]:
  """Steps until a method stopped by its own rule, or all."""
  taken = info.get("steps", {}).get("taken")
  return {"steps": float(num_steps if taken is None else np.asarray(taken)[-1])}
