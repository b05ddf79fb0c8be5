"""How clients train together, and what unlearning may cost."""

from typing import Annotated, NamedTuple

from experiments.run.options import Flag


class Recipe(NamedTuple):
  """How clients train together, and what unlearning may cost."""

  clients: Annotated[
    int,
    Flag("Clients that train together; the first one asks to forget.", least=2),
  ] = 5
  rounds: Annotated[
    int, Flag("Federated rounds of training and of retraining.", least=1)
  ] = 100
  local_steps: Annotated[
    int, Flag("Steps of every client in a round.", least=1)
  ] = 8
  learning_rate: Annotated[
    float, Flag("Learning rate of the clients' training.", least=0.0)
  ] = 0.03
  momentum: Annotated[
    float, Flag("Momentum of the clients' SGD (the paper's).", least=0.0)
  ] = 0.5
  batch_size: Annotated[
    int, Flag("Examples that a step of training or unlearning reads.", least=1)
  ] = 32
  unlearn_steps: Annotated[
    int, Flag("The most steps that a method takes.", least=1)
  ] = 600
  num_draws: Annotated[
    int, Flag("Perturbations of an example in a step of Ferrari.", least=1)
  ] = 20
  check_every: Annotated[
    int, Flag("Steps between two checks of Ferrari's stopping rule.", least=1)
  ] = 5
  trigger: Annotated[
    int,
    Flag("Rows and columns of the backdoor's trigger, in the upper left."),
  ] = 3
  stop_gradient: Annotated[
    str,
    Flag(
      "Branch of Ferrari's loss without gradient; the paper's released code "
      "has perturbed.",
      choices=("none", "perturbed", "clean"),
    ),
  ] = "none"
  unlearn_learning_rate: Annotated[
    float | None,
    Flag("Learning rate of Ferrari (default: the scenario's).", least=0.0),
  ] = None

  @property
  def unlearn_rounds(self) -> int:
    """Rounds that take as many local steps as a method may take."""
    return max(self.unlearn_steps // self.local_steps, 1)
