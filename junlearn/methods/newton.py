"""A Newton correction towards the optimum without the forgotten examples.

    F^-(theta) = mean_{x in D_r} l(theta, x) + (l2 / 2) |theta|^2
    theta <- theta - H^{-1} grad F^-(theta),   H ~ Hess F^-(theta)

At an optimum of the risk before deletion, `grad F^-` is the influence of the
forgotten examples alone, and one step leaves an error of second order in it.
Steps are repeated until the residual is small enough: `bound` turns it into a
distance to exact retraining, and `certify.certified` that distance into an
(epsilon, delta) guarantee.

Sources: C. Guo et al., "Certified Data Removal from Machine Learning Models",
ICML 2020, arXiv 1911.03030; A. Sekhari et al., "Remember What You Want to
Forget", NeurIPS 2021, arXiv 2103.03279.

Differences from the papers: the gradient is measured on the retained examples,
not taken from the forgotten ones on the assumption that the model was trained
to the optimum; systems are solved by conjugate gradients; steps are repeated,
and shortened where the residual would rise.
"""

import jax
import optax

from junlearn import objective, validate
from junlearn.certify import premises
from junlearn.certify.release import Bound
from junlearn.certify.rounding import gradient_error
from junlearn.curvature import Curvature, newton, operator
from junlearn.loss import OutputLoss, of_outputs, softmax_cross_entropy
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Result, Transform
from junlearn.view import View, full, restrict

CARD = Card(
  paper=(
    "C. Guo et al., ICML 2020, arXiv 1911.03030; A. Sekhari et al., "
    "NeurIPS 2021, arXiv 2103.03279"
  ),
  modality="classification",
  reads=("retain",),
  needs_retain=True,
  cost="a Newton step takes up to `cg_steps` HVPs",
  guarantee="(ε, δ) under `certify.certified`, for linear models",
)


def transform(
  model: Model,
  *,
  l2: float,
  max_distance: float = 0.0,
  num_steps: int = 10,
  curvature: Curvature = "hessian",
  damping: float = 0.0,
  tolerance: float = 1e-3,
  cg_steps: int = 100,
  batch_size: int | None = None,
  output_loss: OutputLoss = softmax_cross_entropy,
  view: View | None = None,
) -> Transform:
  """Newton's method on the retained risk; reads `retain`.

  Args:
    model: the model to unlearn from, in evaluation mode.
    l2: strength of the penalty that the model was trained with, above 0.
    max_distance: stop once `|grad F^-| / l2` is at most this; 0 takes all steps
      that lower the residual.
    num_steps: most Newton steps, at least 1; 1 is the papers' correction.
    curvature: what stands for the Hessian of the loss, see
      `curvature.operator`.
    damping: added to `l2` in `H` alone, at least 0; nets that are not convex
      need it.
    tolerance: relative residual of each linear solve.
    cg_steps: most curvature products a solve.
    batch_size: examples that a curvature product reads at once; None means all.
    output_loss: `(outputs, examples) -> [n]`.
    view: which leaves are free; None means `view.full()`.

  Returns:
    A transform whose info is the `curvature.NewtonInfo`.

  Raises:
    ValueError: if a number is out of range, or there is no such `curvature`;
      when applied, if the request has no `retain`.
  """
  validate.positive(l2=l2, tolerance=tolerance)
  validate.at_least(0, max_distance=max_distance, damping=damping)
  validate.at_least(1, num_steps=num_steps, cg_steps=cg_steps)
  operator(curvature, model, output_loss)  # refuses an unknown kind
  view = view or full()

  @jax.jit  # called outside jit, it would else compile its loops every time
  def correct(params, retain):
    free_model, free = restrict(model, view, params)
    risk = objective.risk(of_outputs(free_model, output_loss), l2=l2)
    product = operator(curvature, free_model, output_loss)
    free, info = newton(
      lambda x: jax.grad(risk)(x, retain),
      lambda x: product(x, retain, damping=l2 + damping, batch_size=batch_size),
      free,
      num_steps=num_steps,
      target=float(l2 * max_distance),
      tolerance=tolerance,
      max_steps=cg_steps,
    )
    return view.merge(free, view.split(params)[1]), info

  def stage(key, params, request):
    del key
    params, info = correct(params, premises.retained(request))
    return Result(params, request, info)

  return stage


def bound(
  model: Model,
  *,
  l2: float,
  features: str,
  retrain_error: float = 0.0,
  output_loss: OutputLoss = softmax_cross_entropy,
  convex: str = "",
  view: View | None = None,
) -> Bound:
  """How far params are from retraining, for `certify.certified`.

      |theta - theta'| <= (|grad F^-(theta)| + rounding) / l2

  Args:
    model: as in `transform`; its outputs must be affine in the free leaves.
    l2: as in `transform`.
    features: what the inputs are, as a sentence, and why neither they nor the
      leaves that are not free were made from the records to forget; nobody can
      check it, and it stands in the certificate.
    retrain_error: most that a retrained model may be from its own optimum, at
      least 0.
    output_loss: `(outputs, examples) -> [n]`.
    convex: why the loss is convex in the outputs, as a sentence; only
      `softmax_cross_entropy` needs none.
    view: as in `transform`.

  Returns:
    A `Bound` that checks the model, the loss, the records and the request.

  Raises:
    ValueError: if a number is out of range or `features` is empty.

  **Guarantees**: at least the distance to the minimizer of `F^-` over the free
  leaves, for any values of these, however they came about (`certify`, lemmas 1
  and 9). Assumes what the `Bound` checks, and what it states.
  """
  validate.positive(l2=l2)
  validate.at_least(0, retrain_error=retrain_error)
  view = view or full()

  @jax.jit
  def measure(params, retain):
    free_model, free = restrict(model, view, params)
    risk = objective.risk(of_outputs(free_model, output_loss), l2=l2)
    error = gradient_error(free_model, output_loss, free, retain, l2=l2)
    return {
      "gradient_norm": optax.tree.norm(jax.grad(risk)(free, retain)),
      "gradient_error": error,
    }

  return Bound(
    theorem="residual",
    constants={"l2": l2},
    measure=lambda params, request: measure(params, premises.retained(request)),
    norm="joint",
    retrain_error=retrain_error,
    checks=premises.of_classifier(
      model, output_loss, convex=convex, view=view, axes=1
    ),
    stated={
      "features": premises.statement(features=features),
      "retraining": "Retraining minimizes the same risk over the retained "
      f"records, to within {retrain_error:.6g} of its optimum, and adds the "
      "same noise.",
      **premises.STATED,
    },
    view=view,
  )
