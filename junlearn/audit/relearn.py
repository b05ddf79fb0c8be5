"""Relearning: what a few steps of training bring back.

An attacker who holds some examples trains the model on them. What is hidden
rather than gone comes back faster than it is learned by a model retrained
without it, which is the control: attack both in the same way. The three
attacks differ in their examples alone:

    full     the forgotten examples themselves, all of them
    partial  some of them, the result read on the others: see `folds`
    benign   related examples that hold none of the answers

An attack gives a lower bound of what is left: a stronger one may find more.

Source: Dorna et al., OpenUnlearning (arXiv 2506.12618) for full relearning and
its score; Deeb and Roger (arXiv 2410.08827) for partial relearning ("RTT").
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from junlearn import tree
from junlearn.descent import gradient_descent
from junlearn.loop import Loop, host
from junlearn.loss import Loss
from junlearn.objective import weighted
from junlearn.parallel.sharding import beside
from junlearn.transform import Request

Examples = Mapping[str, Any]


class Curve(NamedTuple):
  """What was measured along an attack.

  Attributes:
    steps: of training at each measurement; the first is 0.
    values: what `measure` returned at each.
    params: after the last step.
  """

  steps: tuple[int, ...]
  values: tuple[Any, ...]
  params: Any


class Robustness(NamedTuple):
  """How much slower than the retrained model an unlearned one recovers.

  Attributes:
    ratio: r, the retrained model's gain over the unlearned one's.
    score: R, r cut to [0, 1]; 1 is as robust as retraining.
  """

  ratio: float
  score: float


# (key, params, examples, measure: params -> any) -> Curve
Attack = Callable[[jax.Array, Any, Examples, Callable[[Any], Any]], Curve]


def relearn(
  loss: Loss,
  optimizer: optax.GradientTransformation,
  *,
  steps: Sequence[int] = (5, 10, 20),
  batch_size: int,
  loop: Loop | None = None,
  **options: Any,
) -> Attack:
  """Training on the attacker's examples, measured on the way.

  All measurements are of one run, so a longer attack continues a shorter one.
  Build one attack and apply it to every model with the same key: they then see
  the same batches, and share one compiled program.

  Args:
    loss: per-example loss, of images or text.
    optimizer: any optax transformation.
    steps: when to measure, increasing, at least 1; before the first step it is
      always measured.
    batch_size: examples a step, at least 1.
    loop: without a checkpoint; None means `loop.host()`, which raises
      NonFiniteError where the attack diverges.
    **options: `view` (the leaves that the attacker trains), `microbatches` and
      `layout` of `descent.gradient_descent`.

  Raises:
    ValueError: if `steps` is empty or not increasing from 1 on, or
      `batch_size` is out of range.
  """
  steps = (0, *steps)
  if len(steps) < 2 or np.any(np.diff(steps) < 1):
    raise ValueError(
      f"steps is {steps[1:]}; it must be increasing numbers, at least 1."
    )
  descent = gradient_descent(
    weighted(loss, retain=1.0),
    optimizer,
    num_steps=steps[-1],
    batch_size=batch_size,
    **options,
  )
  loop = loop or host()

  def attack(key, params, examples, measure):
    request = Request(None, jax.tree.map(jnp.asarray, examples))
    state, xs = descent.init(key, params, request)
    data = beside(state.params, request), state.params
    values = [measure(state.params)]
    for start, stop in itertools.pairwise(steps):
      part = tree.take(xs, slice(start, stop))
      state, _ = loop(descent.step, state, part, data)
      values.append(measure(state.params))
    return Curve(steps, tuple(values), state.params)

  return attack


def folds(
  examples: Examples, number: int, *, seed: int, column: str = "fact"
) -> list[tuple[Examples, Examples]]:
  """What the attacker knows and what stays hidden, `number` times.

  Every row is hidden once. Rows that share a value of `column` stay together,
  so that no fact is known in one phrasing and hidden in another. That hidden
  facts cannot be inferred from known ones is for the data to ensure; the
  retrained model under the same attack shows whether they can.

  Args:
    examples: arrays `[n, ...]`.
    number: of folds, from 2 to the number of values of the column.
    seed: of NumPy's generator, at least 0.
    column: integers `[n]`; "id" divides by rows.

  Returns:
    Pairs (known, hidden); a `1 / number` share of the values is hidden.

  Raises:
    ValueError: if there is no such column, or `number` is out of range.
  """
  if column not in examples:
    raise ValueError(
      f"column is {column!r}; it must be one of {sorted(examples)}."
    )
  groups = np.asarray(examples[column])
  values = np.random.default_rng(seed).permutation(np.unique(groups))
  if not 2 <= number <= len(values):
    raise ValueError(
      f"number is {number}; it must be from 2 to {len(values)}, the number of "
      f"values of {column!r}."
    )

  def pair(hidden):
    is_hidden = np.isin(groups, hidden)
    known, hidden = (
      tree.take(examples, np.flatnonzero(rows))
      for rows in (~is_hidden, is_hidden)
    )
    return known, hidden

  return [pair(hidden) for hidden in np.array_split(values, number)]


def robustness(
  unlearned: tuple[float, float], retrained: tuple[float, float]
) -> Robustness:
  """How an unlearned model's recovery compares with the retrained model's.

      r = (a_retrained - b_retrained) / (a_unlearned - b_unlearned)
      R = max(0, min(r, 1))

  of a metric before (b) and after (a) the same attack. Where the unlearned
  model gains nothing, r is 1 if the retrained one gains nothing either, and
  infinite otherwise: R is 1, there is nothing to recover. Where it alone gains
  and the retrained one loses, R is 0.

  Args:
    unlearned: (before, after) of a metric that grows with what is known.
    retrained: the same of the model retrained without the forgotten examples.

  Raises:
    ValueError: if a value is not finite.

  Source: Dorna et al. (arXiv 2506.12618); the limits are ours.
  """
  pairs = {"unlearned": unlearned, "retrained": retrained}
  for name, pair in pairs.items():
    if not np.all(np.isfinite(pair)):
      raise ValueError(f"{name} is {pair}; both values must be finite.")
  gain, control = (float(after - before) for before, after in pairs.values())
  nothing = 1.0 if control <= 0 else float("inf")
  ratio = control / gain if gain > 0 else nothing
  return Robustness(ratio, min(max(ratio, 0.0), 1.0))
