"""The file format of PEFT for the adapters of decoders.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, in which
`model.layers.0.self_attn.q_proj` has `lora_A` [r, in] and `lora_B` [out, r]:
transposes of our `a` and `b`, one pair for each layer also where ours are
stacked.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from junlearn.storage import files

_CONFIG = "adapter_config.json"
_TENSORS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_SIDES = {"a": "lora_A", "b": "lora_B"}

# Options that change what adapters compute, with the only values supported.
_ONLY = {
  "peft_type": "LORA",
  "bias": "none",
  "fan_in_fan_out": False,
  "use_dora": False,
  "use_rslora": False,
  "use_qalora": False,
  "lora_bias": False,
  "alora_invocation_tokens": None,
  "rank_pattern": {},
  "alpha_pattern": {},
  "layer_replication": None,
}


# Parts of a module's path, and `a` or `b`.
Place = tuple[str, ...]


def write(
  folder: str | Path,
  factors: Mapping[Place, jax.Array],
  *,
  rank: int,
  alpha: float,
  base: str | None,
) -> None:
  """Writes both files; `lora.Lora.export` says what they hold.

  Args:
    folder: made if it is not there.
    factors: all of the rank.
    rank: r.
    alpha: of the scale alpha / r.
    base: name or folder of the original model, for the reader.

  Raises:
    ValueError: if factors belong to a module that is no part of a decoder.
    OSError: if a file cannot be written.
  """
  tensors = {}
  for (*path, side), leaf in factors.items():
    rows = np.asarray(leaf)
    modules = _modules("/".join(path), leaf.shape)
    for module, row in zip(modules, _layers(rows), strict=True):
      tensors[_tensor(module, side)] = np.ascontiguousarray(row.T)
  config = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base,
    "inference_mode": True,
    "r": rank,
    "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
    "lora_dropout": 0.0,
    "bias": "none",
    "fan_in_fan_out": False,
    "target_modules": sorted(
      name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
      for name in tensors
      if name.endswith(".lora_A.weight")
    ),
  }
  folder = Path(folder)
  content = safetensors_numpy.save(tensors, metadata={"format": "pt"})
  files.replace(folder / _TENSORS, content)
  files.replace(folder / _CONFIG, json.dumps(config, indent=2).encode())


def read(
  folder: str | Path, kernels: Mapping[str, jax.Array]
) -> tuple[dict[Place, jax.Array], int, float]:
  """Reads both files; `lora.load` says what they must hold.

  Args:
    folder: written by `write` or by PEFT.
    kernels: of a decoder, stacked or not, by the paths of their modules.

  Returns:
    The factors, their rank and alpha.

  Raises:
    ValueError: if a file is missing or damaged, if an option is not supported
      (it is named with its value), or if tensors are missing, unexpected or of
      another shape (they are listed).
  """
  config, stored = _config(folder), _stored(folder)
  rank, factors, wrong = config["r"], {}, []
  for path, kernel in kernels.items():
    modules = _modules(path, kernel.shape)
    if not any(_tensor(m, s) in stored for m in modules for s in _SIDES):
      continue
    inputs, outputs = kernel.shape[-2:]
    for side, shape in (("a", (rank, inputs)), ("b", (outputs, rank))):
      names = [_tensor(module, side) for module in modules]
      found = [stored.pop(name, np.empty(0)) for name in names]
      wrong += [
        f"{name} {list(leaf.shape)}, not {list(shape)}"
        if leaf.size
        else f"{name} is missing"
        for name, leaf in zip(names, found, strict=True)
        if leaf.shape != shape
      ]
      if not wrong:
        leaf = np.stack([row.T for row in found])
        leaf = leaf if kernel.ndim == 3 else leaf[0]
        factors[*path.split("/"), side] = jnp.asarray(leaf)
  wrong += [f"{name} is unexpected" for name in sorted(stored)]
  if wrong or not factors:
    raise ValueError(
      f"{folder} does not fit the params: "
      f"{'; '.join(wrong[:8]) or 'it has no adapters'}."
    )
  return factors, rank, float(config["lora_alpha"])


def _modules(path: str, shape: tuple[int, ...]) -> list[str]:
  """PEFT's names of the module at a path, one for each layer of a stack."""
  match = re.fullmatch(r"layers(?:_(\d+))?/(.+)|lm_head", path)
  if match is None:
    raise ValueError(
      f"adapters of {path!r} have no place in this format; it is for the "
      "layers and the lm_head of a decoder."
    )
  if path == "lm_head":
    return [path]
  numbers = range(shape[0]) if match[1] is None else [match[1]]
  return [f"model.layers.{n}.{match[2].replace('/', '.')}" for n in numbers]


def _tensor(module: str, side: str) -> str:
  return f"{_PREFIX}{module}.{_SIDES[side]}.weight"


def _layers(leaf: np.ndarray) -> Iterable[np.ndarray]:
  return leaf if leaf.ndim == 3 else [leaf]


def _config(folder: str | Path) -> dict[str, Any]:
  path = Path(folder) / _CONFIG
  try:
    config = json.loads(path.read_text())
    config = {**config, "r": int(config["r"])}
    float(config["lora_alpha"])
  except FileNotFoundError as error:
    raise ValueError(f"{folder} has no {_CONFIG}.") from error
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f"{path} must be a JSON object with the numbers r and lora_alpha."
    ) from error
  found = [
    f"{name} {config[name]!r} (supported is {only!r})"
    for name, only in _ONLY.items()
    if (config.get(name) or only) != only
  ]
  if found:
    raise ValueError(f"{path} has {'; '.join(found)}.")
  return config


def _stored(folder: str | Path) -> dict[str, np.ndarray]:
  path = Path(folder) / _TENSORS
  try:
    with safetensors.safe_open(path, "np") as file:
      return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except FileNotFoundError as error:
    raise ValueError(f"{folder} has no {_TENSORS}.") from error
  except safetensors.SafetensorError as error:
    raise ValueError(f"{path} is damaged: {error}.") from error
