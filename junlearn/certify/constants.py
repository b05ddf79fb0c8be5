"""Constants of linear classifiers, computed from public numbers.

For logits that are linear in the parameters, the loss is the log-partition of
an exponential family minus a linear term, so its derivatives are cumulants of
the score `u.x` along a unit direction `u` of the parameters. If `rho` is the
largest range of that score at `|x| = 1` (1 for one logit, sqrt 2 for softmax),

    |grad ell|    <= rho r               a difference of two scores
    ell''         <= rho^2 r^2 / 4       variance on an interval
    |ell'''|      <= rho^3 r^3 / (6 sqrt 3)

of which `certify`, lemma 3, proves the last. All three constants are attained
or approached.
"""

import math
from typing import NamedTuple

from junlearn import validate


class Constants(NamedTuple):
  """What `bounds` needs to know of `mean ell + l2/2 |w|^2`.

  Attributes:
    gradient: `B >= |grad ell|`, without the penalty.
    smoothness: `beta >=` the largest eigenvalue of the Hessian, with it.
    hessian_lipschitz: `M`, Lipschitz constant of the Hessian (spectral norm).
    optimum_gradient: `L >= |grad ell(w, z) + l2 w|` for every example `z`,
      where `w` is the optimum of any data set.
  """

  gradient: float
  smoothness: float
  hessian_lipschitz: float
  optimum_gradient: float


def logistic(*, input_norm: float, l2: float, scale: float = 1.0) -> Constants:
  """Binary logistic regression, one logit `w.x`.

  Args:
    input_norm: `r`, a bound on `|x|` that holds for every record that could
      be asked for; a bias counts as one more feature, constant 1.
    l2: penalty on all parameters, above 0.
    scale: the factor of the mean loss in the objective, above 0.

  Raises:
    ValueError: if an argument is out of range.
  """
  return _linear(1.0, 2, input_norm, l2, scale)


def softmax(
  *, input_norm: float, l2: float, num_classes: int, scale: float = 1.0
) -> Constants:
  """Softmax regression, one logit `w_k.x` a class.

  Args:
    input_norm: `r`, as in `logistic`.
    l2: penalty on all parameters, above 0.
    num_classes: at least 2.
    scale: the factor of the mean loss in the objective, above 0.

  Raises:
    ValueError: if an argument is out of range.
  """
  validate.at_least(2, num_classes=num_classes)
  return _linear(math.sqrt(2), num_classes, input_norm, l2, scale)


def _linear(score_range, num_classes, input_norm, l2, scale):
  validate.positive(input_norm=input_norm, l2=l2, scale=scale)
  largest = score_range * input_norm
  gradient = scale * largest
  # At an optimum l2 w is minus a mean gradient, and the objective is at most
  # its value at w = 0, scale * ln(num_classes).
  penalty = min(gradient, math.sqrt(2 * l2 * scale * math.log(num_classes)))
  return Constants(
    gradient=gradient,
    smoothness=scale * largest**2 / 4 + l2,
    hessian_lipschitz=scale * largest**3 / (6 * math.sqrt(3)),
    optimum_gradient=gradient + penalty,
  )
