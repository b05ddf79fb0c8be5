"""What the `config.json` of a published checkpoint says of its decoder.

Field names and meanings are those of the Hugging Face hub, in the form that
transformers 4 wrote (`rope_theta`, `rope_scaling`, `torch_dtype`) and in that
of transformers 5 (`rope_parameters`, `dtype`). Both are read. The first is
written, for it is the one that other readers know too.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from junlearn.nn.text.rope import Llama3Scaling
from junlearn.nn.text.transformer import Config

_LLAMA, _MISTRAL, _QWEN2 = _SUPPORTED = (
  "LlamaForCausalLM",
  "MistralForCausalLM",
  "Qwen2ForCausalLM",
)
_SIZES = {
  "vocab_size": "vocab_size",
  "hidden_size": "hidden_size",
  "intermediate_size": "intermediate_size",
  "num_layers": "num_hidden_layers",
  "num_heads": "num_attention_heads",
  "rms_norm_eps": "rms_norm_eps",
  "max_length": "max_position_embeddings",
}
_SCALING = {
  "factor": "factor",
  "low_freq_factor": "low_freq_factor",
  "high_freq_factor": "high_freq_factor",
  "original_max_length": "original_max_position_embeddings",
}
_ONLY = {
  "hidden_act": "silu",
  "mlp_bias": False,
  "use_sliding_window": False,
  "partial_rotary_factor": 1.0,
  "quantization_config": None,
}


def parse(entries: Mapping[str, Any]) -> Config:
  """The decoder that a `config.json` describes.

  A sliding window is accepted where it is at least as long as the context. The
  attention dropout of training is left out.

  Args:
    entries: what the file holds.

  Raises:
    ValueError: if the architecture or an option is not supported (it is named
      with its value), or if an entry is missing.
  """
  names = entries.get("architectures") or []
  if len(names) != 1 or names[0] not in _SUPPORTED:
    raise ValueError(
      f"architectures is {names}; supported are {', '.join(_SUPPORTED)}."
    )
  rope = entries.get("rope_parameters") or entries.get("rope_scaling") or {}
  kind = rope.get("rope_type", rope.get("type", "default"))
  scaled = kind == "llama3"
  _require(entries, _SIZES)
  _require(rope, _SCALING if scaled else {})
  _refuse(names[0], {**entries, **rope}, kind)
  dtype = entries.get("dtype") or entries.get("torch_dtype") or "float32"
  return Config(
    **{ours: entries[theirs] for ours, theirs in _SIZES.items()},
    num_kv_heads=entries.get("num_key_value_heads")
    or entries["num_attention_heads"],
    head_dim=entries.get("head_dim"),
    rope_theta=rope.get("rope_theta") or entries.get("rope_theta") or 10000.0,
    rope_scaling=Llama3Scaling(
      **{ours: rope[theirs] for ours, theirs in _SCALING.items()}
    )
    if scaled
    else None,
    tie_embeddings=entries.get("tie_word_embeddings", False),
    attention_bias=names[0] == _QWEN2,
    dtype=dtype,
    param_dtype=dtype,
  )


def entries(config: Config) -> dict[str, Any]:
  """The `config.json` of a decoder: Qwen2 if it has biases, Llama if not."""
  scaling = config.rope_scaling
  return {
    "architectures": [_QWEN2 if config.attention_bias else _LLAMA],
    "model_type": "qwen2" if config.attention_bias else "llama",
    **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
    "num_key_value_heads": config.num_kv_heads,
    **({"head_dim": config.head_dim} if config.head_dim else {}),
    "rope_theta": config.rope_theta,
    "rope_scaling": scaling
    and {
      "rope_type": "llama3",
      **{theirs: getattr(scaling, ours) for ours, theirs in _SCALING.items()},
    },
    "tie_word_embeddings": config.tie_embeddings,
    "torch_dtype": jnp.dtype(config.param_dtype).name,
    # Else readers take those of Llama 2, which are ordinary tokens elsewhere.
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
  }


def _require(entries: Mapping[str, Any], fields: Mapping[str, str]) -> None:
  missing = [name for name in fields.values() if entries.get(name) is None]
  if missing:
    raise ValueError(f"config.json lacks {', '.join(missing)}.")


def _refuse(architecture: str, entries: Mapping[str, Any], rope: str) -> None:
  """Raises for options of which nothing here knows."""
  found = [
    f"{name} {entries[name]!r} (supported is {only!r})"
    for name, only in _ONLY.items()
    if entries.get(name, only) not in (only, None)
  ]
  if rope not in ("default", "llama3"):
    found.append(f"rope_type {rope!r} (supported are 'default' and 'llama3')")
  if architecture != _QWEN2 and entries.get("attention_bias"):
    found.append("attention_bias True (supported is False)")
  window = entries.get("sliding_window", 4096)
  length = entries["max_position_embeddings"]
  if architecture == _MISTRAL and window is not None and window < length:
    found.append(
      f"sliding_window {window} (supported is null, or at least "
      f"max_position_embeddings, {length})"
    )
  layers = set(entries.get("layer_types") or ()) - {"full_attention"}
  if layers:
    found.append(f"layer_types {sorted(layers)} (supported is full_attention)")
  if found:
    raise ValueError(f"config.json has {'; '.join(found)}.")
