"""What training and corrections cost one client."""

from typing import NamedTuple

import numpy as np

from junlearn.curvature import NewtonInfo

_MAX_TRIALS = 11  # of `curvature.newton`, where no fraction of a step helps


class Effort(NamedTuple):
  """What one client did.

  Attributes:
    communication_rounds: with its neighbors.
    gradients: of its risk over its records; a Hessian-vector product counts as
      two, a transposed one too.
  """

  communication_rounds: float
  gradients: float


def effort_of_rounds(number: int, local_steps: int) -> Effort:
  """Of so many rounds of training."""
  return Effort(number, number * local_steps)


def effort_of_correction(info: NewtonInfo, local_steps: int) -> Effort:
  """Of a stacked correction and one certificate.

  With several local steps a product goes through all of them twice, forward
  and transposed, with a communication round each, and so does a residual.
  """
  tried = np.asarray(info.solves.steps) > 0
  lengths = np.asarray(info.lengths)[tried]
  halvings = -np.log2(np.where(lengths > 0, lengths, 1))
  trials = np.where(lengths > 0, 1 + halvings, _MAX_TRIALS).sum()
  # A solve ends with one product that judges it.
  products = np.asarray(info.solves.steps)[tried].sum() + tried.sum()
  residuals = trials + 1
  if local_steps == 1:
    return Effort(products + residuals + 1, 2 * products + residuals + 1)
  return Effort(
    float(2 * products + 2 * residuals + 1),
    float(local_steps * (4 * products + 3 * residuals + tried.sum() + 1)),
  )
