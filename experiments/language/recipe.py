"""How a language model is trained and unlearned: sizes, steps and rates."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.language.methods import METHODS, VIEWS, ViewName
from experiments.language.tasks import Corpus
from junlearn import language
from junlearn.data.text import tokenizer
from junlearn.methods import finetune, retrain
from junlearn.model import Model
from junlearn.nn.adapters import lora
from junlearn.nn.text import transformer
from junlearn.transform import Transform


class Recipe(NamedTuple):
  """How models are trained and unlearned.

  Attributes:
    hidden_size: width of a fresh decoder.
    intermediate_size: of its feed-forward maps.
    num_layers: its blocks.
    num_heads: of its attention.
    steps: of training; also of fine-tuning, where a checkpoint is given.
    learning_rate: of the same; after a tenth of the steps a cosine schedule
      takes it to 0.
    batch_size: records a step.
    unlearn_steps: the most that a method may take.
    unlearn_batch_size: records of each part that a step reads.
    microbatches: pieces of a batch whose gradients are added one by one.
    rank: of adapters.
    alpha: of the same; adapters are scaled by `alpha / rank`.
    pattern: regular expression of the modules that get adapters.
    threshold: p(answer) at which LUNE stops, a geometric mean over tokens.
    beta: of NPO, which compares answers as a whole: 1 suits a few tokens, 0.1
      some 40.
    relearn_steps: at which an attacker who relearns is measured.
    relearn_learning_rate: of the attacker.
    bits: of quantised weights.
  """

  hidden_size: int = 64
  intermediate_size: int = 176
  num_layers: int = 3
  num_heads: int = 4
  steps: int = 800
  learning_rate: float = 3e-3
  batch_size: int = 64
  unlearn_steps: int = 60
  unlearn_batch_size: int = 30
  microbatches: int = 1
  rank: int = 8
  alpha: float = 16.0
  pattern: str = "(q|k|v|o|gate|up|down)_proj"
  threshold: float = 0.1
  beta: float = 1.0
  relearn_steps: tuple[int, ...] = (5, 10, 20)
  relearn_learning_rate: float = 3e-4
  bits: tuple[int, ...] = (8, 4, 3)


def configure(
  corpus: Corpus, recipe: Recipe, start: tuple[transformer.Config, Any] | None
) -> transformer.Config:
  """The checkpoint's decoder, or a fresh one of the recipe's sizes.

  Raises:
    ValueError: if the tokenizer is not the checkpoint's, or the sizes do not
      fit.
  """
  if start is not None:
    tokenizer.check(corpus.tokenizer, start[0].vocab_size)
    return start[0]
  return transformer.Config(
    vocab_size=corpus.tokenizer.vocab_size,
    hidden_size=recipe.hidden_size,
    intermediate_size=recipe.intermediate_size,
    num_layers=recipe.num_layers,
    num_heads=recipe.num_heads,
    num_kv_heads=recipe.num_heads,
  )


def trainer(
  model: Model, recipe: Recipe, *, fresh: bool, **options: Any
) -> Transform:
  """Training from fresh params, or fine-tuning of a checkpoint's.

  Args:
    model: of text.
    recipe: steps, rate and batches.
    fresh: which of the two.
    **options: `loop` and `layout` of `descent.descend`.
  """
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, 1.0, recipe.steps // 10, max(recipe.steps, 1)
  )
  make = retrain if fresh else finetune
  return make.transform(
    model,
    adam(recipe.learning_rate, schedule),
    loss=language.cross_entropy,
    num_steps=recipe.steps,
    batch_size=recipe.batch_size,
    microbatches=recipe.microbatches,
    **options,
  )


def unlearner(
  model: Model,
  config: transformer.Config,
  recipe: Recipe,
  method: str,
  view: ViewName,
  learning_rate: float,
  **options: Any,
) -> Transform:
  """A method's transform.

  Args:
    model: of text, its adapters at work.
    config: of the model without them.
    recipe: steps, batches and constants.
    method: key of `METHODS`.
    view: key of `VIEWS`.
    learning_rate: of Adam.
    **options: of the method and of `descent.descend`; they have precedence.
  """
  entry = METHODS[method]
  given: dict[str, Any] = {
    "num_steps": recipe.unlearn_steps,
    "batch_size": recipe.unlearn_batch_size,
    "microbatches": recipe.microbatches,
    "view": VIEWS[view],
  }
  if method == "lune":
    given["threshold"] = recipe.threshold
  if method == "npo":
    given["beta"] = recipe.beta
  if method == "rmu":
    middle = transformer.features(config, (config.num_layers + 1) // 2)
    given["features"] = lora.adapt(middle, alpha=recipe.alpha)
  return entry.make(
    model, adam(learning_rate), **{**given, **entry.options, **options}
  )


def check(
  config: transformer.Config,
  recipe: Recipe,
  runs: Iterable[tuple[str, ViewName]],
  *,
  fresh: bool,
  **options: Any,
) -> None:
  """Makes all that a run needs, to no other end than to find what is wrong.

  Args:
    config: of the decoder.
    recipe: to be checked.
    runs: methods and views.
    fresh: whether training begins with fresh params.
    **options: of `descent.descend`.

  Raises:
    ValueError: if the recipe's adapters find no place in the decoder, or a
      method or its descent refuses a number.
  """

  def attached(key):
    params = transformer.model(config).init(key, jnp.zeros((1, 1), jnp.int32))
    return lora.attach(key, params, recipe.pattern, rank=recipe.rank)

  jax.eval_shape(attached, jax.random.key(0))
  model = transformer.model(config)
  trainer(model, recipe, fresh=fresh, **options)
  for method, view in runs:
    unlearner(model, config, recipe, method, view, 0.0, **options)


def adam(
  learning_rate: float, schedule: Callable[[Any], Any] | None = None
) -> optax.GradientTransformation:
  """Adam; the rate is part of the state, so that rates share one program."""
  scheduled = [] if schedule is None else [optax.scale_by_schedule(schedule)]
  return optax.chain(
    optax.scale_by_adam(),
    *scheduled,
    optax.inject_hyperparams(optax.scale)(step_size=-learning_rate),
  )
