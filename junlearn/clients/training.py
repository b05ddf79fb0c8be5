"""How clients trained: what retraining and certificates refer to."""

from typing import NamedTuple

import numpy as np

from junlearn.clients import rounds
from junlearn.clients.gossip import dense
from junlearn.clients.rounds import Risk, Round, Weighting
from junlearn.loss import Loss


class Training(NamedTuple):
  """Decentralized training on full batches.

  Attributes:
    mixing: W `[clients, clients]`, see `topology`.
    step_size: gamma, above 0.
    l2: strength of the penalty on all params, above 0.
    local_steps: tau, at least 1. With 1, gradient and gossip are one step,
      `rounds.gradient_descent`; with more, `rounds.adapt_then_combine`.
    weighting: of clients of unequal size, see `rounds.scale`.
  """

  mixing: np.ndarray
  step_size: float
  l2: float
  local_steps: int = 1
  weighting: Weighting = "uniform"

  def risk(self, loss: Loss) -> Risk:
    """F_i, for the body of `across`."""
    return rounds.risk(loss, l2=self.l2, weighting=self.weighting)

  def round(self, loss: Loss) -> Round:
    """T, for the body of `across`.

    Raises:
      ValueError: if an attribute is out of range.
    """
    risk, mix = self.risk(loss), dense(self.mixing)
    if self.local_steps == 1:
      return rounds.gradient_descent(risk, mix, step_size=self.step_size)
    return rounds.adapt_then_combine(
      risk, mix, step_size=self.step_size, num_steps=self.local_steps
    )
