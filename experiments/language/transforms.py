"""The trainings that a recipe describes, as transforms."""

from collections.abc import Callable
from typing import Any

import optax

from experiments.language.corpora import Corpus
from experiments.language.methods import METHODS, Variant
from experiments.language.recipe import Recipe
from junlearn import language
from junlearn import view as views
from junlearn.data.text import tokenizer
from junlearn.methods import finetune, retrain
from junlearn.model import Model
from junlearn.nn.text import transformer
from junlearn.transform import Transform


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
  variant: Variant,
  learning_rate: float,
  **options: Any,
) -> Transform:
  """A method's transform.

  Args:
    model: of text, its adapters at work.
    config: of the model without them.
    recipe: steps, batches and constants.
    variant: method and view.
    learning_rate: of Adam.
    **options: of the method and of `descent.descend`; they have precedence.
  """
  method, view = variant
  entry = METHODS[method]
  given: dict[str, Any] = {
    "num_steps": recipe.unlearn_steps,
    "batch_size": recipe.unlearn_batch_size,
    "microbatches": recipe.microbatches,
    "view": recipe.adapters.view() if view == "lora" else views.full(),
  }
  if method == "lune":
    given["threshold"] = recipe.threshold
  if method == "npo":
    given["beta"] = recipe.beta
  read: Any = model
  if method == "rmu":  # reads the activations of a layer
    middle = transformer.features(config, (config.num_layers + 1) // 2)
    read = recipe.adapters.adapt(middle)
  return entry.make(
    read, adam(learning_rate), **{**given, **entry.options, **options}
  )


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
