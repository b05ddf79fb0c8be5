"""The decoder of `junlearn.nn.text.transformer`, with fused operations."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from junlearn.nn.text.transformer import Config, unstack


class Decoder(nn.Module):
  """A decoder without scaled wavelengths and biases.

  Args:
    config: of the flax model.
    variables: its variables, stacked, whose weights are taken.
  """

  def __init__(self, config: Config, variables: Any):
    super().__init__()
    layers = unstack(variables)["params"]
    self.eps = config.rms_norm_eps
    self.embedding = _parameter(layers["embed_tokens"]["embedding"])
    self.blocks = nn.ModuleList(
      _Block(config, layers[f"layers_{i}"]) for i in range(config.num_layers)
    )
    self.norm = _parameter(layers["norm"]["scale"])
    self.head = (
      self.embedding
      if config.tie_embeddings
      else _parameter(np.asarray(layers["lm_head"]["kernel"]).T)
    )
    half = torch.arange(0, config.size_of_head, 2) / config.size_of_head
    angle = torch.outer(
      torch.arange(config.max_length), config.rope_theta**-half
    )
    angle = torch.cat([angle, angle], dim=1)
    self.register_buffer("cos", angle.cos())
    self.register_buffer("sin", angle.sin())

  def forward(self, tokens: torch.Tensor) -> torch.Tensor:
    """Logits `[n, length, vocabulary]` of tokens `[n, length]`."""
    x = functional.embedding(tokens, self.embedding)
    turn = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
    for block in self.blocks:
      x = block(x, turn)
    x = functional.rms_norm(x, self.norm.shape, self.norm, self.eps)
    return functional.linear(x, self.head)


class _Block(nn.Module):
  def __init__(self, config, layer):
    super().__init__()
    self.eps, self.size = config.rms_norm_eps, config.size_of_head
    self.before = _parameter(layer["input_layernorm"]["scale"])
    self.between = _parameter(layer["post_attention_layernorm"]["scale"])
    for part in ("self_attn", "mlp"):
      for name, dense in layer[part].items():
        setattr(self, name, _parameter(np.asarray(dense["kernel"]).T))

  def forward(self, x, turn):
    y = functional.rms_norm(x, self.before.shape, self.before, self.eps)
    q, k, v = (
      functional.linear(y, weight)
      .unflatten(-1, (-1, self.size))
      .transpose(1, 2)
      for weight in (self.q_proj, self.k_proj, self.v_proj)
    )
    y = functional.scaled_dot_product_attention(
      _rotate(q, *turn), _rotate(k, *turn), v, is_causal=True, enable_gqa=True
    )
    x = x + functional.linear(y.transpose(1, 2).flatten(2), self.o_proj)
    y = functional.rms_norm(x, self.between.shape, self.between, self.eps)
    gate = functional.silu(functional.linear(y, self.gate_proj))
    y = gate * functional.linear(y, self.up_proj)
    return x + functional.linear(y, self.down_proj)


def _rotate(x, cos, sin):
  first, second = x.chunk(2, dim=-1)
  return x * cos + torch.cat([-second, first], dim=-1) * sin


def _parameter(array: Any) -> nn.Parameter:
  return nn.Parameter(torch.from_numpy(np.array(array, order="C")))


def train(
  net: nn.Module, tokens: torch.Tensor, *, steps: int, learning_rate: float
) -> np.ndarray:
  """Steps of Adam on the mean cross-entropy of tokens 2 to `length`.

  Returns:
    The losses `[steps]`.
  """
  optimizer = torch.optim.Adam(net.parameters(), learning_rate, fused=True)
  losses = []
  for _ in range(steps):
    logits = net(tokens)[:, :-1].flatten(0, 1)
    loss = functional.cross_entropy(logits, tokens[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    losses.append(loss.detach())
  return torch.stack(losses).numpy()
