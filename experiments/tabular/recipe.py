"""What is asked, and how many steps the net is trained and unlearns."""

from typing import Annotated, NamedTuple

from experiments.run.options import Flag


class Recipe(NamedTuple):
  """Each field is a flag, with its default."""

  forget_fraction: Annotated[float, Flag("Fraction of rows to forget.")] = 0.2
  training_steps: Annotated[
    int, Flag("Steps of training and of retraining.", least=1)
  ] = 400
  unlearn_steps: Annotated[int, Flag("Steps of each method.", least=1)] = 100
