"""What a decoder looks like, and a few published ones."""

import dataclasses
from typing import Any

from junlearn import validate
from junlearn.nn.text.rope import Llama3Scaling

_DTYPES = ("bfloat16", "float16", "float32", "float64")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The shape of a decoder and how it computes.

  Attributes:
    vocab_size: tokens.
    hidden_size: width of the residual stream.
    intermediate_size: width of the feed-forward layer.
    num_layers: blocks.
    num_heads: of queries.
    num_kv_heads: of keys and values; divides `num_heads`.
    head_dim: even; by default `hidden_size / num_heads`.
    rope_theta: base of the rotary wavelengths.
    rope_scaling: of these, for long contexts.
    rms_norm_eps: added to mean squares.
    tie_embeddings: whether the head is the embedding.
    attention_bias: whether queries, keys and values have a bias (Qwen2).
    max_length: the most tokens of a sequence.
    dtype: of the computation; norms, angles and softmax are in single
      precision at least.
    param_dtype: of fresh params.
    scan_layers: whether blocks are stacked and compiled once.
    remat: whether the blocks' activations are computed again in the backward
      pass instead of kept.
  """

  vocab_size: int
  hidden_size: int
  intermediate_size: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int | None = None
  rope_theta: float = 10000.0
  rope_scaling: Llama3Scaling | None = None
  rms_norm_eps: float = 1e-6
  tie_embeddings: bool = True
  attention_bias: bool = False
  max_length: int = 2048
  dtype: str = "float32"
  param_dtype: str = "float32"
  scan_layers: bool = True
  remat: bool = False

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type in (int, int | None) and value is not None:
        validate.at_least(1, **{field.name: value})
      if field.type is float:
        validate.positive(**{field.name: value})
    for name in ("dtype", "param_dtype"):
      if getattr(self, name) not in _DTYPES:
        raise ValueError(
          f"{name} is {getattr(self, name)!r}; it must be one of "
          f"{', '.join(_DTYPES)}."
        )
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f"num_kv_heads is {self.num_kv_heads}; it must divide num_heads, "
        f"{self.num_heads}."
      )
    if self.head_dim is None and self.hidden_size % self.num_heads:
      raise ValueError(
        f"num_heads is {self.num_heads}; it must divide hidden_size, "
        f"{self.hidden_size}, or head_dim must be given."
      )
    if self.size_of_head % 2:
      raise ValueError(f"head_dim is {self.size_of_head}; it must be even.")

  @property
  def size_of_head(self) -> int:
    """`head_dim`, or its default."""
    return self.head_dim or self.hidden_size // self.num_heads

  @property
  def upcast_dtype(self) -> str:
    """Of norms, angles, softmax and logits: single precision or better."""
    return "float64" if self.dtype == "float64" else "float32"


_LLAMA_3: dict[str, Any] = {
  "vocab_size": 128256,
  "num_heads": 32,
  "num_kv_heads": 8,
  "rope_theta": 500000.0,
  "rms_norm_eps": 1e-5,
  "max_length": 131072,
  "dtype": "bfloat16",
  "param_dtype": "bfloat16",
}

CONFIGS = {
  "tiny": Config(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=192,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    max_length=128,
  ),
  "qwen2-0.5b": Config(
    vocab_size=151936,
    hidden_size=896,
    intermediate_size=4864,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    rope_theta=1e6,
    attention_bias=True,
    max_length=131072,
    dtype="bfloat16",
    param_dtype="bfloat16",
  ),
  "llama-3.2-1b": Config(
    **_LLAMA_3,
    hidden_size=2048,
    intermediate_size=8192,
    num_layers=16,
    rope_scaling=Llama3Scaling(32.0, 1.0, 4.0, 8192),
  ),
  "llama-3.1-8b": Config(
    **_LLAMA_3,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192),
    tie_embeddings=False,
  ),
}
