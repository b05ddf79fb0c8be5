"""How a language model is trained and unlearned: sizes, steps and rates."""

from typing import Annotated, NamedTuple

from experiments.run.options import Flag
from junlearn.nn.adapters.lora import Lora


class Checkpoint(NamedTuple):
  """What training starts from."""

  model: Annotated[
    str | None,
    Flag("Folder of a checkpoint to start from; else a fresh decoder."),
  ] = None
  dtype: Annotated[
    str | None,
    Flag(
      "Dtype of the checkpoint's params and computation; by default its own.",
      choices=("float32", "bfloat16"),
    ),
  ] = None


class Recipe(NamedTuple):
  """How models are trained, unlearned and relearned."""

  hidden_size: Annotated[int, Flag("Width of a fresh decoder.", least=1)] = 64
  intermediate_size: Annotated[
    int, Flag("Width of a fresh decoder's feed-forward layers.", least=1)
  ] = 176
  num_layers: Annotated[int, Flag("Blocks of a fresh decoder.", least=1)] = 3
  num_heads: Annotated[
    int, Flag("Attention heads of a fresh decoder.", least=1)
  ] = 4
  steps: Annotated[
    int,
    Flag("Steps of training, or of fine-tuning a checkpoint.", least=0),
  ] = 800
  learning_rate: Annotated[
    float,
    Flag(
      "Learning rate of training or fine-tuning; after a tenth of the steps a "
      "cosine schedule takes it to 0.",
      least=0.0,
    ),
  ] = 3e-3
  batch_size: Annotated[
    int, Flag("Records that a step of training reads.", least=1)
  ] = 64
  unlearn_steps: Annotated[
    int, Flag("The most steps that a method takes.", least=0)
  ] = 60
  unlearn_batch_size: Annotated[
    int, Flag("Records of each part that a step of unlearning reads.", least=1)
  ] = 30
  microbatches: Annotated[
    int,
    Flag(
      "Pieces of a batch whose gradients are added one by one, where it does "
      "not fit at once.",
      least=1,
    ),
  ] = 1
  rank: Annotated[int, Flag("Rank of adapters.", least=1)] = 8
  alpha: Annotated[
    float, Flag("Adapters are scaled by alpha / rank.", least=0.0)
  ] = 16.0
  pattern: Annotated[
    str, Flag("Layers that get adapters, a regular expression.")
  ] = "(q|k|v|o|gate|up|down)_proj"
  threshold: Annotated[
    float,
    Flag(
      "p(answer), a geometric mean over tokens, at which LUNE stops.",
      least=0.0,
    ),
  ] = 0.1
  beta: Annotated[
    float,
    Flag(
      "Beta of NPO, which compares answers as a whole: 1 suits a few tokens, "
      "0.1 some 40.",
      least=0.0,
    ),
  ] = 1.0
  relearn_learning_rate: Annotated[
    float, Flag("Learning rate of the attacker who relearns.", least=0.0)
  ] = 3e-4

  @property
  def adapters(self) -> Lora:
    """Those that `rank`, `alpha` and `pattern` say."""
    return Lora(self.pattern, self.rank, self.alpha)
