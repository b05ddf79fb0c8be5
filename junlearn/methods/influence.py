"""Influence unlearning (IU): one linear estimate of where retraining ends.

    v = (n_f / n) (mean_{D_f} grad l - mean_{D_r} grad l),    n = n_f + n_r
    theta' = theta + alpha (H + damping I)^{-1} v,    H of D_r at theta

Sources: P. W. Koh, P. Liang, "Understanding Black-box Predictions via
Influence Functions", ICML 2017, arXiv 1703.04730; as an unlearning baseline
J. Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934.

At an optimum of the mean loss plus `(l2 / 2) |theta|^2`, with `alpha = 1` and
`damping = l2`, this is a Newton step from the old optimum towards the new one:
what is left of the way is of second order in `n_f / n`. Where the gradients do
not vanish or the curvature is far from that of the loss, it is a heuristic;
`alpha` and `damping` keep it short.

Differences from the papers: H is the Gauss-Newton matrix of all retained
examples, which is positive semi-definite, and the system is solved by
conjugate gradients. With `num_samples`, H is the empirical Fisher matrix of so
many of them, inverted exactly as WoodFisher does (released: 1000, damping 1).
The released recursion never reads the gradients after the first, so that
published figures are of a step along v and one gradient alone.
"""

import jax
import jax.numpy as jnp
import optax

from junlearn import batch, tree, validate
from junlearn.curvature.average import weights
from junlearn.curvature.hvp import gauss_newton, gradient
from junlearn.curvature.lowrank import woodfisher
from junlearn.curvature.solve import conjugate_gradient
from junlearn.loss import OutputLoss, of_outputs, softmax_cross_entropy
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Request, Result, Transform
from junlearn.typing import Key, Params
from junlearn.view import View, full, restrict

CARD = Card(
  paper=(
    "P. W. Koh, P. Liang, ICML 2017, arXiv 1703.04730; J. Jia et al., "
    "NeurIPS 2023, arXiv 2304.04934"
  ),
  modality="classification",
  reads=("forget", "retain"),
  needs_retain=True,
  cost="two full gradients and up to `max_steps` HVPs",
)


def transform(
  model: Model,
  *,
  alpha: float = 1.0,
  damping: float = 1e-2,
  num_samples: int | None = None,
  tolerance: float = 1e-3,
  max_steps: int = 100,
  batch_size: int | None = None,
  output_loss: OutputLoss = softmax_cross_entropy,
  view: View | None = None,
) -> Transform:
  """Influence unlearning; reads `forget` and `retain`.

  Args:
    model: the model to unlearn from, in evaluation mode.
    alpha: length of the step, at least 0; 1 is Newton's, the released code's
      is 0.2.
    damping: added to H, above 0; the l2 penalty of training, if it had one.
    num_samples: retained examples of which H is the empirical Fisher matrix,
      at least 1; None means the Gauss-Newton matrix of all.
    tolerance: relative residual of the linear solve.
    max_steps: most curvature products of the solve.
    batch_size: examples that a product reads at once; None means all.
    output_loss: `(outputs, examples) -> [n]`, convex in the outputs.
    view: which leaves are free; None means `view.full()`.

  Returns:
    A transform whose info has `solve`, a `curvature.SolveInfo`, and `step`, the
    norm of `theta' - theta`.

  Raises:
    ValueError: if a number is out of range; and when applied, if the request
      lacks a part.
  """
  validate.positive(damping=damping, tolerance=tolerance)
  validate.at_least(0, alpha=alpha)
  validate.at_least(1, max_steps=max_steps)
  if num_samples is not None:
    validate.at_least(1, num_samples=num_samples)
  view = view or full()

  @jax.jit  # called outside jit, it would else compile its loops every time
  def step(key: Key, params: Params, request: Request):
    free_model, free = restrict(model, view, params)
    loss = of_outputs(free_model, output_loss)
    of_forget, of_retain = (
      gradient(loss, free, part, batch_size=batch_size)
      for part in (request.forget, request.retain)
    )
    forgotten, retained = (
      jnp.sum(weights(part)) for part in (request.forget, request.retain)
    )
    fraction = forgotten / jnp.maximum(forgotten + retained, 1)
    v = jax.tree.map(
      lambda f, r: fraction.astype(f.dtype) * (f - r), of_forget, of_retain
    )
    if num_samples is None:
      product = gauss_newton(
        free_model,
        free,
        request.retain,
        output_loss=output_loss,
        damping=damping,
        batch_size=batch_size,
      )
      estimate, solve = conjugate_gradient(
        product, v, tolerance=tolerance, max_steps=max_steps
      )
    else:
      count = min(num_samples, tree.size(request.retain))
      rows = batch.indices(key, request.retain, num_steps=1, batch_size=count)
      sample = tree.take(request.retain, rows[0])
      estimate, solve = woodfisher(
        loss, free, sample, v, damping=damping, tolerance=tolerance
      )
    estimate = optax.tree.scale(alpha, estimate)
    moved = view.merge(optax.tree.add(free, estimate), view.split(params)[1])
    return moved, {"solve": solve, "step": optax.tree.norm(estimate)}

  def transform(key, params, request):
    for part in ("forget", "retain"):
      if getattr(request, part) is None:
        raise ValueError(f"influence: the request has no {part} examples.")
    params, info = step(key, params, request)
    return Result(params, request, info)

  return transform
