"""Decoders of text: training, decoding, and adapters where there is a GPU.

    python -m experiments.bench.language [--repeats=5] [--out=FILE]

Training is compared with an equal decoder in eager PyTorch (with one thread
and with all; the faster counts at every repeat), greedy decoding from a cache
with decoding that reads whole rows again. On a GPU, training of adapters on a
model of the shape of Llama 3.2 1B is compared with transformers and peft, if
they are installed. Sides are timed in turn; the ratio is the median over
repeats.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags

from experiments.bench import timing
from experiments.bench.conditions import conditions
from junlearn.nn.text.transformer import CONFIGS, Config

_REPEATS = flags.DEFINE_integer(
  "repeats", 5, "Times that each side is measured.", lower_bound=1
)
_ONLY = flags.DEFINE_multi_enum(
  "only",
  None,
  ["training", "decoding", "adapters"],
  "Measure this part only; may be repeated.",
)
_OUT = flags.DEFINE_string("out", None, "Write the tables here, as Markdown.")
_VOCABULARY = flags.DEFINE_integer(
  "vocab_size", 8192, "Tokens of the decoder.", lower_bound=2
)
_WIDTH = flags.DEFINE_integer(
  "hidden_size", 384, "Width of the decoder, in heads of 64.", lower_bound=64
)
_LAYERS = flags.DEFINE_integer(
  "num_layers", 6, "Blocks of the decoder.", lower_bound=1
)
_BATCH = flags.DEFINE_integer(
  "batch_size", 8, "Rows of a batch.", lower_bound=1
)
_LENGTH = flags.DEFINE_integer(
  "length", 128, "Tokens of a row, and of a prompt.", lower_bound=2
)
_STEPS = flags.DEFINE_integer("steps", 5, "Training steps.", lower_bound=1)
_NEW = flags.DEFINE_integer(
  "new_tokens", 64, "Tokens decoded after a prompt.", lower_bound=1
)
_SHAPE = flags.DEFINE_enum(
  "shape", "llama-3.2-1b", sorted(CONFIGS), "Shape of the adapted model."
)
_RANK = flags.DEFINE_integer("rank", 16, "Of the adapters.", lower_bound=1)
_ADAPTED_LENGTH = flags.DEFINE_integer(
  "adapted_length", 512, "Tokens of a row of the adapted model.", lower_bound=2
)


def main(arguments: Sequence[str]) -> None:
  """Measures, prints and, if asked, writes the tables."""
  if len(arguments) > 1:
    sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
  if importlib.util.find_spec("torch") is None:
    sys.exit(
      "error: PyTorch is missing; install the `bench` extra, e.g. "
      "`pip install 'junlearn[bench]'`."
    )
  if _WIDTH.value % 64:
    sys.exit(
      f"error: --hidden_size is {_WIDTH.value}; it must be a multiple of 64."
    )
  # PyTorch needs memory of the same GPU.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  before = os.getloadavg()
  has_gpu = jax.default_backend() == "gpu"
  default = ["training", "decoding", *["adapters"] * has_gpu]
  parts = {
    "training": _training,
    "decoding": _decoding,
    "adapters": _adapters,
  }
  tables = []
  for name in _ONLY.value or default:
    tables.append(parts[name]())
    print(f"\n{tables[-1]}", flush=True)
  text = "\n\n".join([*tables, conditions(before, ["torch"])])
  print(f"\n{text.rsplit(chr(10) * 2, 1)[1]}")
  if _OUT.value:
    Path(_OUT.value).write_text(f"# Decoders of text\n\n{text}\n")


def _training() -> str:
  from experiments.bench import language_cases

  return timing.markdown(
    list(
      language_cases.training(
        *(_REPEATS.value, _config(_LENGTH.value)),
        batch_size=_BATCH.value,
        length=_LENGTH.value,
        steps=_STEPS.value,
      )
    )
  )


def _decoding() -> str:
  from experiments.bench import language_cases

  return timing.markdown(
    list(
      language_cases.decoding(
        *(_REPEATS.value, _config(_LENGTH.value + _NEW.value)),
        batch_size=_BATCH.value,
        length=_LENGTH.value,
        new=_NEW.value,
      )
    ),
    ("cached", "uncached"),
  )


def _adapters() -> str:
  from experiments.bench import language_adapters

  return language_adapters.table(
    *(_REPEATS.value, CONFIGS[_SHAPE.value]),
    batch_size=_BATCH.value,
    length=_ADAPTED_LENGTH.value,
    rank=_RANK.value,
    steps=_STEPS.value,
  )


def _config(max_length: int) -> Config:
  width = _WIDTH.value
  heads = width // 64
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
  app.run(main)
