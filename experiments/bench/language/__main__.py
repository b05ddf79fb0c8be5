"""Decoders of text: training, decoding, and adapters where there is a GPU.

    python -m experiments.bench.language [--repeats=5] [--out=FILE]

Training is compared with an equal decoder in eager PyTorch (with one thread
and with all; the faster counts at every repeat), greedy decoding from a cache
with decoding that reads whole rows again. On a GPU, training of adapters on a
model of the shape of Llama 3.2 1B is compared with transformers and peft, if
they are installed. Sides are timed in turn; the ratio is the median over
repeats.
"""

import os
from collections.abc import Iterator

import jax
from absl import flags

from experiments.bench import page, timing
from junlearn.nn.text.transformer import CONFIGS, Config

_HEAD = 64  # width of a head of attention

_REPEATS = page.repeats(5)
_ONLY = page.only(("training", "decoding", "adapters"))
_VOCABULARY = page.integer(
  "vocab_size", 8192, "Tokens that the decoder knows.", least=2
)
_WIDTH = page.integer(
  "hidden_size", 384, "Width of the decoder, in heads of 64.", least=64
)
_LAYERS = page.integer("num_layers", 6, "Blocks of the decoder.")
_BATCH = page.integer("batch_size", 8, "Rows of a batch.")
_LENGTH = page.integer(
  "length", 128, "Tokens of a row, and of a prompt.", least=2
)
_STEPS = page.integer("steps", 5, "Training steps that are timed at once.")
_NEW = page.integer("new_tokens", 64, "Tokens decoded after a prompt.")
_SHAPE = flags.DEFINE_enum(
  "shape", "llama-3.2-1b", sorted(CONFIGS), "Shape of the adapted model."
)
_RANK = page.integer("rank", 16, "Rank of the adapters.")
_ADAPTED_LENGTH = page.integer(
  "adapted_length", 512, "Tokens of a row of the adapted model.", least=2
)


def _measure() -> Iterator[str]:
  """A table for each part."""
  if _WIDTH.value % _HEAD:
    raise ValueError(
      f"--hidden_size is {_WIDTH.value}; it must be a multiple of {_HEAD}."
    )
  # PyTorch needs memory of the same GPU.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  has_gpu = jax.default_backend() == "gpu"
  default = ["training", "decoding", *["adapters"] * has_gpu]
  for number, name in enumerate(_ONLY.value or default):
    yield from [""] * (number > 0)
    yield from _part(name)


def _part(name: str) -> Iterator[str]:
  # Both import PyTorch, which is slow, and --help does not need it.
  from experiments.bench.language import adapters, cases

  shape = {"batch_size": _BATCH.value, "length": _LENGTH.value}
  if name == "training":
    config = _config(_LENGTH.value)
    return timing.table(
      cases.training(_REPEATS.value, config, **shape, steps=_STEPS.value)
    )
  if name == "decoding":
    config = _config(_LENGTH.value + _NEW.value)
    return timing.table(
      cases.decoding(_REPEATS.value, config, **shape, new=_NEW.value),
      ("cached", "uncached"),
    )
  return adapters.table(
    *(_REPEATS.value, CONFIGS[_SHAPE.value]),
    batch_size=_BATCH.value,
    length=_ADAPTED_LENGTH.value,
    rank=_RANK.value,
    steps=_STEPS.value,
  )


def _config(max_length: int) -> Config:
  width = _WIDTH.value
  heads = width // _HEAD
  groups = next(k for k in (3, 2, 1) if heads % k == 0)
  return Config(
    vocab_size=_VOCABULARY.value,
    hidden_size=width,
    intermediate_size=width * 8 // 3,
    num_layers=_LAYERS.value,
    num_heads=heads,
    num_kv_heads=heads // groups,
    max_length=max_length,
  )


if __name__ == "__main__":
  page.start("Decoders of text", _measure, ["torch"])
