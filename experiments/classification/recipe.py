"""How a net is trained from scratch, and what unlearning may cost."""

from typing import Annotated, NamedTuple

import optax

from experiments.run.options import Flag
from junlearn import nn

MODELS = {"cnn": nn.CNN, "mlp": nn.MLP, "resnet18": nn.ResNet18}


class Recipe(NamedTuple):
  """How a net is trained from scratch, and what unlearning may cost."""

  model: Annotated[str, Flag("Net to train.", choices=MODELS)] = "cnn"
  epochs: Annotated[
    int,
    Flag("Epochs of training, retraining and the reference models.", least=1),
  ] = 40
  unlearn_epochs: Annotated[
    int,
    Flag(
      "Budget of each method, in passes over the retained records.", least=0
    ),
  ] = 8
  learning_rate: Annotated[
    float,
    Flag("Of training; a cosine schedule takes it to 0.", least=0.0),
  ] = 0.05
  batch_size: Annotated[
    int, Flag("Examples that a step of training or unlearning reads.", least=1)
  ] = 64
  momentum: Annotated[
    float, Flag("Momentum of SGD, everywhere.", least=0.0)
  ] = 0.9
  weight_decay: Annotated[
    float, Flag("L2 penalty on all parameters, everywhere.", least=0.0)
  ] = 5e-4
  references: Annotated[
    int,
    Flag("Reference models of the membership attack, an even number.", least=2),
  ] = 16

  def optimizer(
    self, learning_rate: float, num_steps: int
  ) -> optax.GradientTransformation:
    """SGD with momentum, weight decay and a cosine schedule to 0.

    The rate is part of the state and no constant of the program, so that all
    rates share one compiled program.
    """
    schedule = optax.cosine_decay_schedule(1.0, max(num_steps, 1))
    return optax.chain(
      optax.add_decayed_weights(self.weight_decay),
      optax.sgd(schedule, self.momentum),
      optax.inject_hyperparams(optax.scale)(step_size=learning_rate),
    )

  def training_steps(self, examples: int) -> int:
    """Steps of training from scratch on so many examples."""
    return self.epochs * -(-examples // self.batch_size)

  def unlearning_steps(self, retained: int) -> int:
    """Steps that every method may take."""
    return self.unlearn_epochs * -(-retained // self.batch_size)
