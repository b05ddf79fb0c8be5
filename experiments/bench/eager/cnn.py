"""A small convolutional net: its training and its adversarial examples."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_FORMAT = torch.channels_last


def images(array: Any) -> torch.Tensor:
  """Images `[n, h, w, c]` as the net below reads them.

  They are turned by 180 degrees. Flax pads a convolution of stride 2 below and
  to the right, PyTorch above and to the left; turned, both nets are the same
  function and PyTorch needs no padding of its own before each convolution.
  """
  turned = np.array(array)[:, ::-1, ::-1].transpose(0, 3, 1, 2).copy()
  return torch.from_numpy(turned).contiguous(memory_format=_FORMAT)


def tensors(examples: Any) -> tuple[torch.Tensor, torch.Tensor]:
  """Images and labels of junlearn's examples."""
  labels = torch.from_numpy(np.array(examples["label"], np.int64))
  return images(examples["input"]), labels


class CNN(nn.Module):
  """`junlearn.nn.CNN` for images of even height and width.

  Args:
    variables: the flax variables whose weights it takes.
    shape: height and width of the images.
  """

  def __init__(self, variables: Any, shape: tuple[int, int]):
    super().__init__()
    layers = variables["params"]
    names = sorted(name for name in layers if name.startswith("Conv"))
    self.convolutions = nn.ModuleList(
      _convolution(layers[name]) for name in names
    )
    side = [size >> len(names) for size in shape]
    first, last = layers["Dense_0"], layers["Dense_1"]
    self.hidden = _dense(_turned(np.asarray(first["kernel"]), side), first)
    self.output = _dense(np.asarray(last["kernel"]), last)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Logits `[n, classes]` of images `[n, c, h, w]`."""
    for convolution in self.convolutions:
      x = functional.relu(convolution(x))
    x = x.permute(0, 2, 3, 1).flatten(1)
    return self.output(functional.relu(self.hidden(x)))


def _convolution(layer: Any) -> nn.Conv2d:
  kernel = np.asarray(layer["kernel"])[::-1, ::-1].transpose(3, 2, 0, 1).copy()
  features, channels = kernel.shape[:2]
  module = nn.Conv2d(channels, features, 3, stride=2, padding=1)
  module.weight.data = torch.from_numpy(kernel)
  module.bias.data = torch.from_numpy(np.array(layer["bias"]))
  return module.to(memory_format=_FORMAT)


def _turned(kernel: np.ndarray, side: list[int]) -> np.ndarray:
  by_place = kernel.reshape(*side, -1, kernel.shape[1])
  return by_place[::-1, ::-1].reshape(kernel.shape)


def _dense(kernel: np.ndarray, layer: Any) -> nn.Linear:
  module = nn.Linear(*kernel.shape)
  module.weight.data = torch.from_numpy(kernel.T.copy())
  module.bias.data = torch.from_numpy(np.array(layer["bias"]))
  return module


def train(
  net: nn.Module,
  inputs: torch.Tensor,
  labels: torch.Tensor,
  rows: torch.Tensor,
  *,
  learning_rate: float,
  momentum: float,
  weight_decay: float,
) -> torch.Tensor:
  """Trains the net in place on batches `rows` `[steps, batch]`.

  Returns:
    The losses `[steps]`.
  """
  optimizer = torch.optim.SGD(
    net.parameters(),
    learning_rate,
    momentum=momentum,
    weight_decay=weight_decay,
    fused=True,
  )
  losses = []
  for row in rows:
    batch = inputs.index_select(0, row)
    loss = functional.cross_entropy(net(batch), labels.index_select(0, row))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    losses.append(loss.detach())
  return torch.stack(losses)


class Adversarial(NamedTuple):
  """`input` `[n, c, h, w]`, `label` `[n]`, `distance` `[n]`."""

  input: torch.Tensor
  label: torch.Tensor
  distance: torch.Tensor


def _norm(x: torch.Tensor) -> torch.Tensor:
  return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)


def nearest_adversarial(
  net: nn.Module,
  inputs: torch.Tensor,
  labels: torch.Tensor,
  *,
  compact: bool,
  epsilon: float = 0.04,
  num_steps: int = 50,
  max_doublings: int = 12,
) -> Adversarial:
  """`junlearn.adversarial.nearest_adversarial` of one batch, warm started.

  Args:
    net: gives the logits; its parameters must not require gradients.
    inputs: in the box [0, 1].
    labels: true labels.
    compact: whether examples leave the batch when they are done, or stay
      behind a mask as in AMUN's released code.
    epsilon: first radius.
    num_steps: steps at each radius.
    max_doublings: doublings before an example counts as failed.
  """
  result, found = torch.zeros_like(inputs), labels.clone()
  rows = torch.arange(len(labels))
  x, y, delta = inputs, labels, torch.zeros_like(inputs)
  active = torch.ones(len(labels), dtype=torch.bool)
  for step in range(num_steps * (max_doublings + 1)):
    radius = epsilon * 2.0 ** (step // num_steps)
    delta.requires_grad_(True)
    logits = net(x + delta)
    (grad,) = torch.autograd.grad(
      functional.cross_entropy(logits, y, reduction="sum"), delta
    )
    with torch.no_grad():
      delta = delta.detach()
      now = logits.argmax(1)
      flipped = active & (now != y)
      if flipped.any():
        result[rows[flipped]] = delta[flipped]
        found[rows[flipped]] = now[flipped]
        active &= ~flipped
        if not active.any():
          break
        if compact:
          x, y, delta, grad, rows = (
            part[active] for part in (x, y, delta, grad, rows)
          )
          active = active[active]
      moved = delta + grad * (radius / 10 / (_norm(grad) + 1e-10))
      moved *= torch.clamp(radius / _norm(moved).clamp_min(1e-10), max=1)
      delta = (x + moved).clamp_(0, 1).sub_(x)
  distance = _norm(result).flatten()
  return Adversarial(inputs + result, found, distance)
