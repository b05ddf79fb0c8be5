"""RMU: representation misdirection.

N. Li et al., "The WMDP Benchmark: Measuring and Reducing Malicious Use With
Unlearning", arXiv 2403.03218.

At one layer, the activations of forgotten text are steered to a fixed random
direction of a fixed length, so that the layers above can make nothing of them.
Those of retained text are held to the reference. Only the layers up to that
one learn anything; a view restricts them further.

    L_f = E (1 / |y|) sum_t (1 / d) |h_t - c u|^2,    |u| = 1
    L_r = E (1 / |y|) sum_t (1 / d) |h_t - h_t,reference|^2
    L = gamma L_f + alpha L_r

over the tokens t of `mask`, at their own places. `u` is drawn once from the
key; where topics are to have directions of their own, each is one request.

Differences from the released codes: the original averages over all tokens, a
`mask` that holds them all. A later one multiplies the mean of the sums over
tokens by the mean of 1 / |y|, which is the same for answers of one length;
`separate_means=True` does. The factor 1 / d is theirs, so that c and alpha suit
one width.
"""

from collections.abc import Callable
from typing import Literal, Unpack, get_args

import jax
import jax.numpy as jnp
import optax

from junlearn import language, objective, validate
from junlearn.descent import DescendOptions, descend
from junlearn.methods.card import Card
from junlearn.transform import Result, Transform, chain
from junlearn.typing import Inputs, Params

CARD = Card(
  paper="N. Li et al., 2024, arXiv 2403.03218",
  modality="language",
  reads=("forget", "retain"),
  needs_retain=True,
  cost=(
    "steps on two batches up to one layer, and a second model, the reference"
  ),
)

Features = Callable[[Params, Inputs], jax.Array]
Direction = Literal["uniform", "normal"]


def steer(
  features: Features, *, coefficient: float, direction: Direction = "uniform"
) -> Transform:
  """Sets `extra` to the forget examples with `target` `[n, d]`, `c u`.

  Args:
    features: `(params, inputs) -> [n, length, d]`.
    coefficient: the length c of the target.
    direction: "uniform" draws u from the positive quadrant, as released: two
      such have a cosine near 0.75; "normal" from all directions.

  Raises:
    ValueError: if the direction is unknown.
  """
  validate.one_of(get_args(Direction), direction=direction)
  draw = getattr(jax.random, direction)

  def transform(key, params, request):
    inputs = request.forget["input"]
    shape = jax.eval_shape(features, params, inputs).shape
    u = draw(key, shape[-1:])
    target = coefficient * u / jnp.linalg.norm(u)
    rows = jnp.broadcast_to(target, (shape[0], shape[-1]))
    extra = {**request.forget, "target": rows}
    return Result(params, request._replace(extra=extra), {"direction": u})

  return transform


def transform(
  features: Features,
  optimizer: optax.GradientTransformation,
  *,
  coefficient: float = 2.0,
  direction: Direction = "uniform",
  gamma: float = 1.0,
  alpha: float = 1.0,
  separate_means: bool = False,
  **options: Unpack[DescendOptions],
) -> Transform:
  """RMU; reads `forget` and `retain`.

  Published settings: c 6.5, alpha 1200, layer 7 of Zephyr-7B, 150 steps of 4
  rows with learning rate 5e-5, down projections of layers 5 to 7; c 2, alpha 1
  for TOFU.

  Args:
    features: `(params, inputs) -> [n, length, d]`, a layer's activations: all
      that is read of a model.
    optimizer: any optax transformation.
    coefficient: the length c of the target.
    direction: how u is drawn, see `steer`.
    gamma: weight of the forget term.
    alpha: weight of the retain term.
    separate_means: the mean of sums times the mean of 1 / |y|, see above.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if the direction is unknown.
  """

  def distance(params, target, examples):
    found = language.precise(features(params, examples["input"]))
    gap = found - target.astype(found.dtype)
    mask = examples["mask"].astype(bool)
    each = jnp.where(mask, jnp.mean(jnp.square(gap), axis=-1), 0)
    per_token = 1 / jnp.maximum(jnp.sum(mask, axis=1), 1).astype(found.dtype)
    if separate_means:
      per_token = objective.mean(per_token, examples)
    return jnp.sum(each, axis=1) * per_token, params

  def forget(params, examples, key=None):
    return distance(params, examples["target"][:, None], examples)

  def retain(params, reference, examples, key=None):
    target = features(reference, examples["input"])
    return distance(params, jax.lax.stop_gradient(target), examples)

  total = objective.total(
    objective.weighted(forget, extra=gamma),
    objective.relative(retain, retain=alpha),
  )
  return chain(
    direction=steer(features, coefficient=coefficient, direction=direction),
    descend=descend(total, optimizer, **options),
  )
