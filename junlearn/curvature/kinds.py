"""The curvatures by name, for methods that offer a choice."""

from collections.abc import Callable
from typing import Literal, get_args

from junlearn import validate
from junlearn.curvature.fisher_matrix import empirical_fisher, fisher
from junlearn.curvature.hvp import Matvec, gauss_newton, hessian
from junlearn.loss import OutputLoss, of_outputs, softmax_cross_entropy
from junlearn.model import Model

Curvature = Literal["hessian", "gauss_newton", "fisher", "empirical_fisher"]


def operator(
  curvature: Curvature,
  model: Model,
  output_loss: OutputLoss = softmax_cross_entropy,
) -> Callable[..., Matvec]:
  """`(params, examples, **options) -> matvec` of the kind named.

  Args:
    curvature: a function of this package; `fisher` is that of a classifier
      with logits, whatever the loss.
    model: gives outputs `[n, ...]`.
    output_loss: `(outputs, examples) -> [n]`.

  Raises:
    ValueError: if there is no such kind.
  """
  loss = of_outputs(model, output_loss)
  kinds = {
    "hessian": lambda *a, **k: hessian(loss, *a, **k),
    "gauss_newton": lambda *a, **k: gauss_newton(
      model, *a, output_loss=output_loss, **k
    ),
    "fisher": lambda *a, **k: fisher(model, *a, **k),
    "empirical_fisher": lambda *a, **k: empirical_fisher(loss, *a, **k),
  }
  validate.one_of(get_args(Curvature), curvature=curvature)
  return kinds[curvature]
