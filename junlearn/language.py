"""What a language model gives the tokens of an answer.

Examples of text are dicts of arrays with one sequence a row:

    input  [n, length] int32 tokens, padded on the right; or a dict of `tokens`,
           `positions` and `segments`, each [n, length], where several records
           share a row or rows are padded on the left
    mask   [n, length] bool: the tokens to predict, which are those of the
           answer and its end token; never the first of a row
    id     [n]

A model of text gives logits `[n, length, vocabulary]`. Those at position t - 1
predict token t:

    s_t = log p(x_t | x_<t),    S = sum_t s_t,    p_norm = exp(S / |y|)

with sums over the tokens to predict, |y| of them. Where several records share a
row, S is that of all their answers: means over tokens are the same then, losses
of each answer are not. Everything is computed in at least single precision.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from junlearn import objective as objectives
from junlearn import validate
from junlearn.loss import Loss, OutputLoss, of_outputs
from junlearn.model import Model
from junlearn.objective import Objective, RelativeLoss
from junlearn.typing import Examples, Inputs, Params, PyTree

RetainLoss = Literal["nll", "kl"]


class Decoder(NamedTuple):
  """A model of text that keeps what it has read.

  Attributes:
    init: `(params, n, length) -> cache`, with room for `length` tokens a row.
    step: `(params, inputs, cache) -> (logits [n, t, vocabulary], cache)`, for
      the next t tokens of each row; `inputs` as in examples.
  """

  init: Callable[[Params, int, int], PyTree]
  step: Callable[[Params, Inputs, PyTree], tuple[jax.Array, PyTree]]


class Retain(NamedTuple):
  """The term that holds on to what is retained.

  Attributes:
    weight: of the term, at least 0.
    loss: "nll", the cross-entropy of the retained answers, or "kl",
      KL(p_reference || p) at their tokens, over the whole vocabulary.
    all_positions: average "kl" over all positions, prompts and padding
      included, as released codes do; by default over answers alone.
  """

  weight: float = 1.0
  loss: RetainLoss = "nll"
  all_positions: bool = False


NLL = Retain()
KL = Retain(loss="kl")


def tokens(examples: Examples) -> jax.Array:
  """The tokens `[n, length]` of examples, packed or not."""
  inputs = examples["input"]
  return inputs["tokens"] if isinstance(inputs, dict) else inputs


def targets(examples: Examples) -> tuple[jax.Array, jax.Array]:
  """Tokens 2 to `length` of each row and whether to predict them.

  Returns:
    int `[n, length - 1]` and bool `[n, length - 1]`.
  """
  return tokens(examples)[:, 1:], examples["mask"][:, 1:].astype(bool)


def alternative(examples: Examples) -> Examples:
  """The examples with another answer in place of their own.

  Args:
    examples: with a nested dict `alternative`, a row for a row: `input` and
      `mask` of the same prompts with a refusal, say, or a wrong answer.

  Raises:
    ValueError: if there is none.
  """
  if "alternative" not in examples:
    raise ValueError(
      "the examples have no `alternative`; it must be a dict with the `input` "
      "and `mask` of another answer to each prompt."
    )
  others = {name: examples[name] for name in examples if name != "alternative"}
  return others | examples["alternative"]


def precise(values: jax.Array) -> jax.Array:
  """The values in at least single precision."""
  short = jnp.finfo(values.dtype).bits < 32
  return values.astype(jnp.float32) if short else values


def predictions(logits: jax.Array) -> jax.Array:
  """The logits of tokens 2 to `length`, `[n, length - 1, vocabulary]`."""
  return precise(logits[:, :-1])


def token_log_probs(logits: jax.Array, examples: Examples) -> jax.Array:
  """`s_t` of tokens 2 to `length`, `[n, length - 1]`; 0 outside the mask."""
  target, mask = targets(examples)
  logits = predictions(logits)
  chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
  return jnp.where(mask, chosen - jax.nn.logsumexp(logits, axis=-1), 0)


def num_targets(
  examples: Examples, dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.Array:
  """`|y|`, the tokens to predict in each row, `[n]`."""
  return jnp.sum(targets(examples)[1], axis=1).astype(dtype)


def sequence_nll(logits: jax.Array, examples: Examples) -> jax.Array:
  """`-S` in nats, `[n]`: minus the log-probability of the whole answer."""
  return -jnp.sum(token_log_probs(logits, examples), axis=1)


def mean_nll(logits: jax.Array, examples: Examples) -> jax.Array:
  """`-S / |y|` in nats, `[n]`: the mean over an answer's tokens."""
  total = sequence_nll(logits, examples)
  return total / jnp.maximum(num_targets(examples, total.dtype), 1)


def token_nll(logits: jax.Array, examples: Examples) -> jax.Array:
  """`-S / mean |y|` in nats, `[n]`: see `per_token`."""
  return per_token(-token_log_probs(logits, examples), examples)


def per_token(values: jax.Array, examples: Examples) -> jax.Array:
  """Row sums `[n]` whose mean over the batch is the mean over its tokens.

      sum_t v_t / mean |y|

  over the tokens to predict, the mean being over the rows present. A long
  answer weighs more than a short one, as in the usual training of language
  models.

  Args:
    values: `[n, length - 1]`, of tokens 2 to `length`.
    examples: their examples.
  """
  mask = targets(examples)[1]
  mean = objectives.mean(num_targets(examples, values.dtype), examples)
  sums = jnp.sum(jnp.where(mask, values, 0), axis=1)
  return sums / jnp.where(mean > 0, mean, 1)


def cross_entropy(model: Model, output_loss: OutputLoss = token_nll) -> Loss:
  """The loss of next-token prediction on the tokens to predict.

  Args:
    model: of text.
    output_loss: `token_nll`, `mean_nll` or `sequence_nll`.
  """
  return of_outputs(model, output_loss)


def kl(model: Model, *, all_positions: bool = False) -> RelativeLoss:
  """`KL(p_reference || p)` over the vocabulary, averaged as `token_nll`.

  Args:
    model: of text.
    all_positions: average over all positions, see `Retain`.
  """

  def loss(params, reference, examples, key=None):
    logits, params = model.apply(params, examples["input"], key)
    anchor = jax.lax.stop_gradient(model.apply(reference, examples["input"])[0])
    new, old = (jax.nn.log_softmax(precise(z)) for z in (logits, anchor))
    each = optax.losses.kl_divergence_with_log_targets(new, old)
    if all_positions:
      return jnp.mean(each, axis=1), params
    return per_token(each[:, :-1], examples), params

  return loss


def with_retain(
  objective: Objective, model: Model, retain: Retain | None
) -> Objective:
  """The objective plus the term of `retain`; None or weight 0 adds nothing.

  Raises:
    ValueError: if the weight is negative or the loss is unknown.
  """
  if retain is None:
    return objective
  validate.at_least(0, **{"retain.weight": retain.weight})
  validate.one_of(get_args(RetainLoss), **{"retain.loss": retain.loss})
  terms = {
    "nll": lambda: objectives.weighted(
      cross_entropy(model), retain=retain.weight
    ),
    "kl": lambda: objectives.relative(
      kl(model, all_positions=retain.all_positions), retain=retain.weight
    ),
  }
  if retain.weight == 0:
    return objective
  return objectives.total(objective, terms[retain.loss]())


@functools.partial(jax.jit, static_argnames=("loss", "batch_size"))
def losses(
  loss: Loss, params: Params, examples: Examples, *, batch_size: int = 32
) -> jax.Array:
  """The loss `[n]` of each example by itself, in evaluation mode.

  Args:
    loss: such as `cross_entropy(model, mean_nll)`.
    params: where it is evaluated.
    examples: `n` examples.
    batch_size: examples at a time.
  """

  def one(example):
    row = jax.tree.map(lambda leaf: leaf[None], example)
    return loss(params, row)[0][0]

  return jax.lax.map(one, examples, batch_size=batch_size)


def with_reference(
  loss: Loss, params: Params, examples: Examples, *, batch_size: int = 32
) -> Examples:
  """The examples with `reference` `[n]`, their `losses` at the given params.

  What an objective needs of the model that it started from is so computed
  once, and that model is not carried through the steps.
  """
  reference = losses(loss, params, examples, batch_size=batch_size)
  return {**examples, "reference": reference}
