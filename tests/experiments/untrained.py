"""A session that trains nothing and counts the steps that it was asked for."""

import jax
import numpy as np

from experiments.run.session import Outcome
from junlearn import loop


class Untrained:
  """In place of a `Session`: every phase gives random params at once."""

  def __init__(self):
    self.loop, self.steps, self.names = loop.scan(), 0, []

  def phase(self, name, transform, *, start, steps, models=1, **options):
    """The outcome of a phase that was never run."""
    del transform, options
    self.steps += steps * models
    self.names.append(name)
    rng = np.random.default_rng(len(self.names))
    params = jax.tree.map(
      lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), start
    )
    return Outcome(params, 1.0, 0.0, 0, [[0.0]], {}, name)
