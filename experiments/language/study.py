"""Training, unlearning and auditing a language model, phase by phase.

Shared by the main job (`experiments.language`) and the claims.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language import audit as language_audit
from experiments.language import recipe as language_recipe
from experiments.language.audit import Evidence
from experiments.language.methods import METHODS, ViewName
from experiments.language.recipe import Recipe, adam, configure
from experiments.language.tasks import Corpus, Task, all_of
from experiments.run.session import Outcome, Session
from junlearn import language
from junlearn.audit import relearn
from junlearn.descent import Descent
from junlearn.early_stopping import until
from junlearn.loop import Loop
from junlearn.nn.adapters import lora
from junlearn.nn.text import transformer
from junlearn.parallel.sharding import Layout
from junlearn.transform import Request, Transform, stage_key


class Study:
  """One corpus, one recipe; every training is a phase of the session.

  Args:
    corpus: what models are trained on.
    recipe: how.
    session: of the run.
    start: config and params of a checkpoint that training starts from; None
      for a fresh decoder of the recipe's sizes.
    layout: where params and batches lie, if on several devices.
  """

  def __init__(
    self,
    corpus: Corpus,
    recipe: Recipe,
    session: Session,
    *,
    start: tuple[transformer.Config, Any] | None = None,
    layout: Layout | None = None,
  ):
    self.corpus, self.recipe, self.session = corpus, recipe, session
    self.config = configure(corpus, recipe, start)
    self._start = start and start[1]
    self._layout = layout
    plain = transformer.model(self.config)
    self.model = lora.adapt_model(plain, alpha=recipe.alpha)
    self.decoder = transformer.decoder(self.config)
    self.abstract = jax.eval_shape(
      plain.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
    )

  def train(self, name: str, seed: int, task: Task | None = None) -> Outcome:
    """The model trained on everything, or without what a task forgets.

    Both take the same steps, from the same fresh params or the checkpoint.
    """
    request = all_of(self.corpus) if task is None else task.request
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
    return language_recipe.trainer(
      self.model,
      self.recipe,
      fresh=self._start is None,
      layout=self._layout,
      loop=self.session.loop,
    )

  def unlearn(
    self,
    name: str,
    seed: int,
    task: Task,
    params: Any,
    *,
    method: str | None = None,
    view: ViewName | None = None,
    learning_rate: float | None = None,
    stop: float | None = None,
    every: int = 2,
    evaluate: Callable[[Any], tuple[float, ...]] | None = None,
    **options: Any,
  ) -> Outcome:
    """The phase of a method, from the given params.

    Its curve has what `evaluate` measures. The outcome's params have adapters
    where the view is "lora" (`plain` merges them).

    Args:
      name: of the phase, unique for the seed.
      seed: of batches and adapters.
      task: what to forget.
      params: of the original model.
      method: key of `METHODS`; None for the name.
      view: None for the method's usual one.
      learning_rate: None for the method's.
      stop: the accuracy on held-out phrasings below or at which every method
        stops, also one with a rule of its own; None lets it go on.
      every: steps between two looks at that accuracy.
      evaluate: `params -> values`; None for `tracker`.
      **options: of the method and of `descent.descend`, such as `num_steps`.
    """
    method = method or name
    entry = METHODS[method]
    view = view or entry.view
    rate = entry.rates[view] if learning_rate is None else learning_rate
    loop = self.session.loop
    if stop is not None:
      loop = self.stopping(task, stop, every)
    transform = self.unlearner(
      method, view, rate, loop, tuple(sorted(options.items()))
    )
    key = stage_key(jax.random.key(seed), "unlearn")
    if view == "lora":
      params = lora.attach(
        stage_key(key, "adapters"),
        params,
        self.recipe.pattern,
        rank=self.recipe.rank,
      )
    request = self.request(method, task)
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
  def unlearner(
    self,
    method: str,
    view: ViewName,
    learning_rate: float,
    loop: Loop,
    options: tuple[tuple[str, Any], ...] = (),
  ) -> Transform:
    """A method's transform, made once so that requests share its program."""
    return language_recipe.unlearner(
      self.model,
      self.config,
      self.recipe,
      method,
      view,
      learning_rate,
      **{"layout": self._layout, "loop": loop, **dict(options)},
    )

  def request(self, method: str, task: Task) -> Request:
    """What a method reads of a task."""
    entry, request = METHODS[method], task.request
    if entry.answers is None:
      return request
    answers = task.alternatives[entry.answers]
    if entry.in_extra:
      return request._replace(extra=answers, retain=None)
    other = {name: answers[name] for name in ("input", "mask")}
    return request._replace(forget={**request.forget, "alternative": other})

  def stopping(self, task: Task, stop: float, every: int) -> Loop:
    """A loop that ends at an accuracy on held-out phrasings; small models."""
    examples = self.corpus.encode(task.parts["heldout"])

    def accuracy(key, params, request):
      del key, request
      logits, _ = self.model.apply(params, examples["input"])
      target, mask = language.targets(examples)
      right = jnp.argmax(language.predictions(logits), axis=-1) == target
      return jnp.mean(jnp.all(right | ~mask, axis=1).astype(jnp.float32))

    def loop(step, carry, xs, data):
      descent = until(
        Descent(lambda *_: (carry, xs), step),
        lambda now, first: now <= stop,
        measure=accuracy,
        every=every,
      )
      request, params = data
      state, xs = descent.init(jax.random.key(0), params, request)
      state, infos = self.session.loop(descent.step, state, xs, data)
      return state.inner, infos

    return loop

  def plain(self, params: Any) -> Any:
    """The params with their adapters, if any, merged."""
    if "lora" in params:
      return lora.merge(params, alpha=self.recipe.alpha)
    return params

  def tracker(self, task: Task) -> Callable[[Any], tuple[float, float]]:
    """Accuracy on phrasings that were not named, and on retained records."""
    asked = language_audit.progress(self.corpus, task)

    def evaluate(params):
      right = language_audit.accuracies(self.model, params, asked)
      return right["heldout"], right["retain"]

    return evaluate

  def audit(
    self,
    params: Any,
    task: Task,
    *,
    seed: int,
    original: Any = None,
    retrained: Evidence | None = None,
  ) -> Evidence:
    """Everything that is measured of a model.

    Args:
      params: the model's.
      task: what was to be forgotten.
      seed: of the attacker.
      original: params of the original model, for what quantisation maps to
        it; None if this is the original model.
      retrained: evidence of the retrained model; None if this is it.
    """
    plain, params = transformer.model(self.config), self.plain(params)
    by_part = language_audit.collect(self.corpus, plain, params, task)
    metrics, arrays = language_audit.knowledge(
      by_part, graded=self.corpus.graded
    )
    said, samples = language_audit.say(
      self.corpus, self.decoder, params, task, num_tokens=self.num_tokens
    )
    metrics |= said
    metrics |= language_audit.tofu(metrics, arrays, retrained)
    leaked, leaks = language_audit.attack(by_part, task, retrained)
    metrics |= leaked
    relearned, curves = language_audit.relearn(
      self.corpus,
      plain,
      self.attacker,
      params,
      task,
      seed=seed,
      retrained=retrained,
    )
    metrics |= relearned
    metrics |= language_audit.round_weights(
      self.corpus, plain, params, task, bits=self.recipe.bits, original=original
    )
    return Evidence(metrics, arrays | leaks | curves | {"samples": samples})

  @functools.cached_property
  def attacker(self) -> relearn.Attack:
    """Who relearns; the same for all models."""
    recipe = self.recipe
    return relearn.relearn(
      language.cross_entropy(transformer.model(self.config)),
      adam(recipe.relearn_learning_rate),
      steps=recipe.relearn_steps,
      batch_size=recipe.unlearn_batch_size,
    )

  @functools.cached_property
  def num_tokens(self) -> int:
    """Of the longest answer."""
    mask = self.corpus.encode(self.corpus.trained)["mask"]
    return int(mask.sum(axis=1).max())


def _steps_taken(num_steps: int, info: Any) -> dict[str, float]:
  """Steps until a method stopped by its own rule, or all."""
  taken = info.get("steps", {}).get("taken")
  return {"steps": float(num_steps if taken is None else np.asarray(taken)[-1])}
