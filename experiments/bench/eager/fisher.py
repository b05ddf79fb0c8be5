"""The exact diagonal Fisher, example by example."""

import torch
from torch import nn
from torch.nn import functional


def diagonal_fisher(
  net: nn.Module,
  inputs: torch.Tensor,
  labels: torch.Tensor,
  *,
  expected: bool,
) -> list[torch.Tensor]:
  """The mean of squared gradients of single examples, one per parameter.

  Args:
    net: gives the logits.
    inputs: `[n, c, h, w]`.
    labels: `[n]`, read where the labels are not the expected ones.
    expected: sum over all labels, weighted by the net's own probabilities.
  """
  weights = list(net.parameters())
  total = [torch.zeros_like(weight) for weight in weights]
  for row in range(len(inputs)):
    logits = net(inputs[row : row + 1])[0]
    losses = -functional.log_softmax(logits, dim=0)
    if expected:
      probability = torch.softmax(logits.detach(), dim=0).tolist()
      terms = list(enumerate(probability))
    else:
      terms = [(int(labels[row]), 1.0)]
    for label, mass in terms:
      grads = torch.autograd.grad(losses[label], weights, retain_graph=expected)
      for sums, grad in zip(total, grads, strict=True):
        sums.addcmul_(grad, grad, value=mass)
  return [sums / len(inputs) for sums in total]
