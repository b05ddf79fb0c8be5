"""Relearning: what a few steps of training bring back.

An attacker who holds some examples trains the model on them. What is hidden
rather than gone comes back faster than it is learned by a model retrained
without it, which is the control: attack both in the same way. The three
attacks differ in their examples alone:

    full     the forgotten examples themselves, all of them
    partial  some of them, the result read on the others
    benign   related examples that hold none of the answers

An attack gives a lower bound of what is left: a stronger one may find more.

Source: Dorna et al., OpenUnlearning (arXiv 2506.12618) for full relearning and
its score; Deeb and Roger (arXiv 2410.08827) for partial relearning ("RTT").
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from junlearn import tree
from junlearn.descent import Placement, gradient_descent
from junlearn.loop import Loop, host
from junlearn.loss import Loss
from junlearn.objective import weighted
from junlearn.parallel.sharding import beside
from junlearn.transform import Request
from junlearn.typing import Examples, Key, Params
from junlearn.view import View


class Curve(NamedTuple):
  """What was measured along an attack.

  Attributes:
    steps: of training at each measurement; the first is 0.
    values: what `measure` returned at each.
    params: after the last step.
  """

  steps: tuple[int, ...]
  values: tuple[Any, ...]
  params: Params


class Robustness(NamedTuple):
  """How much slower than the retrained model an unlearned one recovers.

  Attributes:
    ratio: r, the retrained model's gain over the unlearned one's.
    score: R, r cut to [0, 1]; 1 is as robust as retraining.
  """

  ratio: float
  score: float


# (key, params, examples, measure: params -> any) -> Curve
Attack = Callable[[Key, Params, Examples, Callable[[Params], Any]], Curve]


def relearn(
  loss: Loss,
  optimizer: optax.GradientTransformation,
  *,
  steps: Sequence[int] = (5, 10, 20),
  batch_size: int,
  loop: Loop | None = None,
  view: View | None = None,
  microbatches: int = 1,
  layout: Placement = None,
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
    view: the leaves that the attacker trains; None means `view.full()`.
    microbatches: pieces of a batch, as for `descent.gradient_descent`.
    layout: where params and batches lie, as for `descent.gradient_descent`.

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
    view=view,
    microbatches=microbatches,
    layout=layout,
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
