"""Ferrari: unlearning one feature by minimising the sensitivity to it.

H. Gu, W. Ong, C. S. Chan, L. Fan, "Ferrari: Federated Feature Unlearning via
Optimizing Feature Sensitivity", NeurIPS 2024, arXiv 2405.17462.

A feature (a trigger, a colour, a column) is to be forgotten, not records. The
client that holds inputs D_u with the feature makes the model insensitive to
perturbations confined to it (`sensitivity`); it needs no labels and no other
client, and the server takes over what it uploads.

    theta' ~ argmin_theta  E_{x in D_u} (1/N) sum_i
                           |f(x) - f(x + delta_i)| / |delta_i|

Any constant f is a minimum, and nothing in the objective holds on to utility:
the descent must stop early. It stops where the sensitivity on D_u has fallen to
a share of its start, or where D_u is no longer predicted as a given class (the
target of a backdoor).

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
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from junlearn import batch as batches
from junlearn import objective as objectives
from junlearn import sensitivity, tree
from junlearn.descent import gradient_descent, run
from junlearn.early_stopping import until
from junlearn.loop import Loop
from junlearn.model import Model, freeze_statistics
from junlearn.objective import Objective
from junlearn.transform import Transform, stage_key

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
  if num_draws < 1:
    raise ValueError(
      f"ferrari: num_draws is {num_draws}; it must be at least 1."
    )
  for name, value, choices in (
    ("stop_gradient", stop_gradient, Branch),
    ("reduction", reduction, Reduction),
  ):
    if value not in choices.__args__:
      raise ValueError(
        f"ferrari: {name} is {value!r}; it must be one of "
        f"{', '.join(choices.__args__)}."
      )

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
  mask: Any = None,
  num_draws: int = 20,
  sigma: tuple[float, float] = (0.05, 1.0),
  shared_axes: tuple[int, ...] = (),
  stop_gradient: Branch = "none",
  reduction: Reduction = "sum",
  normalize: bool = True,
  update_statistics: bool = False,
  sensitivity_share: float | None = 0.45,
  target: int | None = None,
  target_share: float = 0.05,
  check_every: int = 10,
  check_size: int = 512,
  loop: Loop | None = None,
  **options: Any,
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
      many values share, such as a colour: `(0, 1)` covers that.
    stop_gradient: the branch that carries no gradient.
    reduction: of the losses of a batch.
    normalize: False leaves out the division by |delta|.
    update_statistics: train in training mode, so that batch statistics move
      with the clean and the perturbed batch; otherwise they stay.
    sensitivity_share: stop once the sensitivity on D_u is at most this share
      of its start, in (0, 1); None never stops for it.
    target: stop once at most `target_share` of D_u is predicted as this class;
      None never stops for it.
    target_share: in [0, 1).
    check_every: steps between two looks at the stopping rule, at least 1.
    check_size: examples of D_u to look at, at least 1.
    loop: how steps are repeated; None means `loop.scan()`.
    **options: `num_steps` (the most that are taken), `batch_size`, `view` of
      `descent.gradient_descent`.

  Returns:
    The transform. `info["steps"]` holds `loss`, `stopped`, and as `now` and
    `first` the last and the first look: `sensitivity`, and `target_share` if
    there is a `target`.

  Raises:
    ValueError: if an argument is out of range; when applied, if a mask has the
      wrong shape or, where its values are known, is empty.

  **Guarantees**: none about forgetting. The theorem of the paper bounds the
  loss of utility by that of exact removal of the feature, under zero training
  loss.
  """
  _check(sensitivity_share, target_share, check_size)
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
      found["target_share"] = objectives.mean(is_target, examples)
    return found

  def reached(now, first):
    goals = []
    if sensitivity_share is not None:
      bound = sensitivity_share * first["sensitivity"]
      goals.append(now["sensitivity"] <= bound)
    if target is not None:
      goals.append(now["target_share"] <= target_share)
    return functools.reduce(operator.and_, goals, jnp.asarray(bool(goals)))

  descent = until(
    gradient_descent(loss, optimizer, **options),
    reached,
    measure=measure,
    every=check_every,
  )
  minimize = run(descent, loop)

  def transform(key, params, request):
    given = request._replace(forget=None, retain=None, extra=None)
    given = given._replace(forget=_masked(request.forget, mask))
    return minimize(key, params, given)._replace(request=request)

  return transform


def _masked(examples: Any, mask: Any) -> dict[str, Any]:
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


def _check(sensitivity_share, target_share, check_size):
  if sensitivity_share is not None and not 0 < sensitivity_share < 1:
    raise ValueError(
      f"ferrari: sensitivity_share is {sensitivity_share}; it must be in "
      "(0, 1), or None."
    )
  if not 0 <= target_share < 1:
    raise ValueError(
      f"ferrari: target_share is {target_share}; it must be in [0, 1)."
    )
  if check_size < 1:
    raise ValueError(
      f"ferrari: check_size is {check_size}; it must be at least 1."
    )
