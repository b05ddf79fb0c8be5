"""Ferrari: unlearning one feature by minimizing the sensitivity to it.

H. Gu, W. Ong, C. S. Chan, L. Fan, "Ferrari: Federated Feature Unlearning via
Optimizing Feature Sensitivity", NeurIPS 2024, arXiv 2405.17462.

A feature (a trigger, a color, a column) is to be forgotten, not records. The
client that holds inputs D_u with the feature makes the model insensitive to
perturbations confined to it (`sensitivity`); it needs no labels and no other
client, and the server takes over what it uploads.

    theta' ~ argmin_theta  E_{x in D_u} (1/N) sum_i
                           |f(x) - f(x + delta_i)| / |delta_i|

Any constant f is a minimum, and nothing in the objective holds on to utility:
the descent must stop early. It stops where the sensitivity on D_u has fallen to
a fraction of its start, or where D_u is no longer predicted as a given class
(the target of a backdoor).

Differences from the paper:
- The gradient flows through both branches, as the formula has it; the released
  code stops it in the perturbed one (`stop_gradient="perturbed"`).
- Perturbations are drawn anew at every step; the released code draws N for
  each example once.
- The released code takes one pass over D_u and has no stopping rule.
- Batch statistics are frozen; the released code lets every perturbed batch
  move them (`update_statistics=True`).
"""

import functools
import operator
from typing import Literal, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from junlearn import batch as batches
from junlearn import objective as objectives
from junlearn import sensitivity, tree, validate
from junlearn.descent import DescendOptions, descend
from junlearn.early_stopping import StopRule
from junlearn.methods.card import Card
from junlearn.model import Model, freeze_statistics
from junlearn.objective import Objective
from junlearn.transform import Transform, stage_key
from junlearn.typing import Examples

CARD = Card(
  paper="H. Gu et al., NeurIPS 2024, arXiv 2405.17462",
  modality="feature",
  reads=("forget",),
  needs_retain=False,
  cost="steps of `num_draws` + 1 passes each",
)

Branch = Literal["none", "perturbed", "clean"]
Reduction = Literal["sum", "mean"]


def lipschitz(
  model: Model,
  *,
  num_draws: int = 20,
  sigma: tuple[float, float] = (0.05, 1.0),
  shared_axes: tuple[int, ...] = (),
  stop_gradient: Branch = "none",
  reduction: Reduction = "sum",
  normalize: bool = True,
) -> Objective:
  """The objective above over the forget examples and their `mask`.

  Args: as `transform`.
  """
  sensitivity.check_sigma(sigma)
  validate.at_least(1, num_draws=num_draws)
  validate.one_of(get_args(Branch), stop_gradient=stop_gradient)
  validate.one_of(get_args(Reduction), reduction=reduction)

  def objective(params, batch, *, reference, key):
    del reference
    examples = batch.forget
    inputs = examples["input"]
    delta = sensitivity.masked_gaussian(
      stage_key(key, "delta"),
      examples["mask"],
      num_draws=num_draws,
      sigma=sigma,
      shared_axes=shared_axes,
    )
    clean, params = model.apply(params, inputs, stage_key(key, "clean"))
    moved, params = model.apply(
      params,
      (inputs + delta).reshape(-1, *inputs.shape[1:]),
      stage_key(key, "perturbed"),
    )
    moved = moved.reshape(num_draws, *clean.shape)
    if stop_gradient == "clean":
      clean = jax.lax.stop_gradient(clean)
    elif stop_gradient == "perturbed":
      moved = jax.lax.stop_gradient(moved)
    losses = sensitivity.ratios(clean, moved, delta, divide=normalize).mean(0)
    loss = objectives.mean(losses, examples)
    if reduction == "sum":
      loss *= jnp.sum(examples["weight"])
    return loss, (params, {})

  return objective


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  mask: ArrayLike | None = None,
  num_draws: int = 20,
  sigma: tuple[float, float] = (0.05, 1.0),
  shared_axes: tuple[int, ...] = (),
  stop_gradient: Branch = "none",
  reduction: Reduction = "sum",
  normalize: bool = True,
  update_statistics: bool = False,
  sensitivity_fraction: float | None = 0.45,
  target: int | None = None,
  target_fraction: float = 0.05,
  check_every: int = 10,
  check_size: int = 512,
  **options: Unpack[DescendOptions],
) -> Transform:
  """Ferrari; reads the inputs of `forget`, no label, and nothing of `retain`.

  Published setting: plain SGD, one pass over D_u, batch 128, learning rate
  1e-5 on CIFAR-10 with summed batches (released code).

  Args:
    model: the model to unlearn from; its outputs are logits.
    optimizer: any optax transformation. Learning rates are those of a loss
      that is summed over the batch, unless `reduction` is "mean".
    mask: where the feature is: booleans or 0/1 numbers of one input's shape.
      None reads `forget["mask"]`, a mask for every example; examples whose
      mask is empty take no part.
    num_draws: perturbations N of every example and step.
    sigma: least and greatest scale of a perturbation, in units of the inputs.
    shared_axes: axes of one input along which the noise is the same. Noise
      that is independent from value to value averages out in a feature that
      many values share, such as a color: `(0, 1)` covers that.
    stop_gradient: the branch that carries no gradient.
    reduction: of the losses of a batch.
    normalize: False leaves out the division by |delta|.
    update_statistics: train in training mode, so that batch statistics move
      with the clean and the perturbed batch; otherwise they stay.
    sensitivity_fraction: stop once the sensitivity on D_u is at most this
      fraction of its start, in (0, 1); None never stops for it.
    target: stop once at most `target_fraction` of D_u is predicted as this
      class; None never stops for it.
    target_fraction: in [0, 1).
    check_every: steps between two looks at the stopping rule, at least 1.
    check_size: examples of D_u to look at, at least 1.
    **options: of `descent.descend`; `num_steps` is the most that are taken, and
      `stop` takes the place of the two goals above.

  Returns:
    The transform. `info["steps"]` holds `loss`, `stopped`, and as `now` and
    `first` the last and the first look: `sensitivity`, and `target_fraction` if
    there is a `target`.

  Raises:
    ValueError: if an argument is out of range; when applied, if a mask has the
      wrong shape or, where its values are known, is empty.

  **Guarantees**: none about forgetting. The theorem of the paper bounds the
  loss of utility by that of exact removal of the feature, under zero training
  loss.
  """
  if sensitivity_fraction is not None:
    validate.within("(0, 1)", sensitivity_fraction=sensitivity_fraction)
  validate.within("[0, 1)", target_fraction=target_fraction)
  validate.at_least(1, check_every=check_every, check_size=check_size)
  if mask is not None and not np.any(mask):
    raise ValueError("ferrari: mask is empty; it must mark the feature.")
  loss = lipschitz(
    model if update_statistics else freeze_statistics(model),
    num_draws=num_draws,
    sigma=sigma,
    shared_axes=shared_axes,
    stop_gradient=stop_gradient,
    reduction=reduction,
    normalize=normalize,
  )

  def measure(key, params, request):
    examples = request.forget
    size = min(check_size, tree.size(examples))
    rows = batches.indices(key, examples, num_steps=1, batch_size=size)[0]
    examples = tree.take(examples, rows)
    inputs = examples["input"]
    clean, _ = model.apply(params, inputs)

    def draw(key):
      delta = sensitivity.masked_gaussian(
        key,
        examples["mask"],
        num_draws=1,
        sigma=sigma,
        shared_axes=shared_axes,
      )
      moved, _ = model.apply(params, inputs + delta[0])
      return sensitivity.ratios(clean, moved[None], delta)[0]

    ratios = jax.lax.map(draw, jax.random.split(key, num_draws)).mean(0)
    found = {"sensitivity": objectives.mean(ratios, examples)}
    if target is not None:
      is_target = (jnp.argmax(clean, -1) == target).astype(ratios.dtype)
      found["target_fraction"] = objectives.mean(is_target, examples)
    return found

  def reached(now, first):
    goals = []
    if sensitivity_fraction is not None:
      bound = sensitivity_fraction * first["sensitivity"]
      goals.append(now["sensitivity"] <= bound)
    if target is not None:
      goals.append(now["target_fraction"] <= target_fraction)
    return functools.reduce(operator.and_, goals, jnp.asarray(bool(goals)))

  if options.get("stop") is None:
    options["stop"] = StopRule(reached, measure, check_every)
  minimize = descend(loss, optimizer, **options)

  def transform(key, params, request):
    given = request._replace(forget=None, retain=None, extra=None)
    given = given._replace(forget=_masked(request.forget, mask))
    return minimize(key, params, given)._replace(request=request)

  return transform


def _masked(examples: Examples, mask: ArrayLike | None) -> Examples:
  """What the descent reads: inputs, masks, and weights of 0 without a mask."""
  if mask is None and "mask" not in examples:
    raise ValueError(
      "ferrari: mask is None and the forget examples have no 'mask'; one of "
      "them must say where the feature is."
    )
  inputs = jnp.asarray(examples["input"])
  mask = sensitivity.masks(examples["mask"] if mask is None else mask, inputs)
  marked = jnp.any(mask != 0, axis=tuple(range(1, mask.ndim)))
  weight = marked.astype(inputs.dtype)
  if "weight" in examples:
    weight *= jnp.asarray(examples["weight"]).astype(inputs.dtype)
  if not isinstance(weight, jax.core.Tracer) and not np.any(weight):
    raise ValueError(
      "ferrari: mask is empty for every forget example; it must mark the "
      "feature of one at least."
    )
  return {"input": inputs, "mask": mask, "weight": weight}
