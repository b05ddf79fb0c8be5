"""Decoders from and to folders as the Hugging Face hub has them.

A folder holds `config.json` and `model.safetensors`, or shards of it with
`model.safetensors.index.json`. Nothing is unpickled. Files are mapped into
memory and read tensor by tensor, and each device reads the slices that it
keeps: beside the params, one leaf of them at a time is on the host.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree, validate
from junlearn.nn.text import architecture, layout, shards
from junlearn.nn.text.layout import EMBEDDING, HEAD
from junlearn.nn.text.transformer import Config
from junlearn.storage import files
from junlearn.typing import Params

Sharding = jax.sharding.Sharding

_CONFIG = "config.json"
_TOKENIZER = "tokenizer.json"
_BESIDE = (
  "tokenizer_config.json",
  "special_tokens_map.json",
  "generation_config.json",
)
_DTYPES = {
  "BF16": "bfloat16",
  "F16": "float16",
  "F32": "float32",
  "F64": "float64",
}


def config(folder: str | Path) -> Config:
  """The decoder that a folder holds, in the dtype that it declares.

  Raises:
    ValueError: if the folder has no `config.json` that can be read, or if the
      architecture or an option is not supported.
  """
  path = Path(folder) / _CONFIG
  if not path.is_file():
    raise ValueError(f"{folder} is no checkpoint: it has no {_CONFIG}.")
  content = shards.read_json(path)
  try:
    return architecture.parse(content)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  except (AttributeError, TypeError) as error:
    said = str(error).removesuffix(".")
    raise ValueError(f"{path} has a value of a wrong type: {said}.") from error


def load(
  folder: str | Path,
  *,
  dtype: Any = None,
  sharding: Sharding | Callable[[str, tuple[int, ...]], Sharding] | Any = None,
  scan_layers: bool = True,
) -> tuple[Config, Params]:
  """Reads a decoder.

  A head that the config ties to the embedding may be stored if it equals it;
  `rotary_emb.inv_freq` of old checkpoints, which the config gives, is ignored.

  Args:
    folder: of the checkpoint.
    dtype: of the params and, in the config returned, of the computation; None
      means that of the tensors.
    sharding: of all params; or `(name, shape) -> Sharding`, with names such as
      `params/layers/mlp/up_proj/kernel`; or a tree of them, of the params'
      structure. None leaves the params uncommitted on the default device.
    scan_layers: whether layers are stacked.

  Returns:
    The config, and the params of `transformer.model(config)`.

  Raises:
    ValueError: as `config`; also if files are missing or damaged, if tensors
      are missing, unexpected or of another shape (they are listed), if they
      differ in dtype and none is given, or if the sharding has another
      structure. No params have been made then.
  """
  found = dataclasses.replace(config(folder), scan_layers=scan_layers)
  leaves = layout.leaves(found)
  stored = {
    name: tensor
    for name, tensor in shards.find(Path(folder)).items()
    if not name.endswith("rotary_emb.inv_freq")
  }
  _check_stored(folder, found, leaves, stored)
  dtype = _dtype(folder, dtype, {tensor.dtype for tensor in stored.values()})
  if found.tie_embeddings and HEAD in stored:
    _check_tied(folder, stored[HEAD], stored[EMBEDDING])
  found = dataclasses.replace(found, dtype=dtype.name, param_dtype=dtype.name)

  def place(leaf, sharding):
    read = functools.partial(leaf.read, stored, dtype)
    if sharding is None:
      return jax.device_put(read((slice(None),) * len(leaf.shape)))
    return jax.make_array_from_callback(leaf.shape, sharding, read)

  return found, jax.tree.map(place, leaves, _shardings(sharding, leaves))


def save(
  folder: str | Path,
  config: Config,
  params: Params,
  *,
  max_shard_bytes: int = 5 * 10**9,
  tokenizer: str | Path | None = None,
  extra: Mapping[str, Any] | None = None,
) -> None:
  """Writes a decoder for transformers and `load`; the dtype is kept.

  All is written beside the folder, then renamed: the folder is complete or not
  there.

  Args:
    folder: new or empty.
    config: of the params.
    params: of `transformer.model(config)`, all within reach of this process.
    max_shard_bytes: of a file; a larger tensor has one for itself.
    tokenizer: a `tokenizer.json` to copy, or a folder with one, whose
      `tokenizer_config.json`, `special_tokens_map.json` and
      `generation_config.json` are copied too.
    extra: further entries of `config.json`, such as `eos_token_id`.

  Raises:
    ValueError: if the folder is not empty, if params do not fit the config
      (they are listed) or differ in dtype, if there is no such tokenizer, if
      extra entries say otherwise than the config, or if `max_shard_bytes` is
      not positive.
    OSError: if the disk is full or cannot be written; nothing is left then.
  """
  folder = Path(folder).absolute()
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise ValueError(f"{folder} exists; it must be new or an empty folder.")
  validate.positive(max_shard_bytes=max_shard_bytes)
  leaves = layout.leaves(config)
  dtype = _check_params(leaves, params)
  content = _config_json(
    dataclasses.replace(config, param_dtype=dtype), extra or {}
  )
  copies = _text_files(tokenizer)
  pairs = zip(jax.tree.leaves(leaves), jax.tree.leaves(params), strict=True)
  sources = [source for leaf, x in pairs for source in leaf.sources(x)]
  partial = folder.with_name(f"{folder.name}.partial")
  shutil.rmtree(partial, ignore_errors=True)
  try:
    files.replace(partial / _CONFIG, content)
    for name, path in copies.items():
      shutil.copyfile(path, partial / name)
    shards.write(partial, sources, max_shard_bytes)
    partial.rename(folder)
  except OSError as error:
    shutil.rmtree(partial, ignore_errors=True)
    raise OSError(f"{folder} could not be written: {error}") from error


def _check_stored(folder, config, leaves, stored) -> None:
  """Raises where a folder has not the tensors of its config."""
  wanted = {
    name: leaf.stored(leaf.shape)
    for leaf in jax.tree.leaves(leaves)
    for name in leaf.tensors
  }
  optional = {HEAD: wanted[EMBEDDING]} if config.tie_embeddings else {}
  have = {name: tensor.shape for name, tensor in stored.items()}
  _compare(f"{folder} does not fit its {_CONFIG}", have, wanted, optional)


def _check_tied(folder, head: shards.Tensor, embedding: shards.Tensor) -> None:
  size, rows = head.shape[0], 1024  # at a time
  for start in range(0, size, rows):
    index = (slice(start, min(start + rows, size)), slice(None))
    # Double precision holds all dtypes, which may differ between the two.
    a, b = (x.read(index).astype(np.float64) for x in (head, embedding))
    if not np.array_equal(a, b):
      raise ValueError(
        f"{folder} has a {HEAD} that differs from {EMBEDDING}, to which "
        f"{_CONFIG} ties it."
      )


def _dtype(folder, dtype: Any, stored: set[str]) -> np.dtype:
  """The dtype given, or else that of the tensors."""
  if not stored <= _DTYPES.keys() or (dtype is None and len(stored) > 1):
    raise ValueError(
      f"{folder} has tensors of {', '.join(sorted(stored))}; there must be one "
      f"of {', '.join(_DTYPES)}, or several of them and a dtype given."
    )
  dtype = jnp.dtype(_DTYPES[min(stored)] if dtype is None else dtype)
  allowed = set(_DTYPES.values())
  if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
    allowed.remove("float64")
  if dtype.name not in allowed:
    raise ValueError(
      f"dtype is {dtype.name}; it must be one of {', '.join(sorted(allowed))}."
    )
  return dtype


def _shardings(sharding: Any, leaves: Any) -> Any:
  """A tree with the sharding of each leaf."""
  if callable(sharding):
    return tree.map_leaves(lambda name, x: sharding(name, x.shape), leaves)
  if sharding is None or isinstance(sharding, Sharding):
    return jax.tree.map(lambda _: sharding, leaves)
  given: Any = jax.tree.structure(sharding)
  if given != jax.tree.structure(leaves):
    raise ValueError(
      "sharding has another structure than the params; it must be a Sharding, "
      "a function of name and shape, or a tree like the params."
    )
  return sharding


def _check_params(leaves: Any, params: Params) -> str:
  """Raises where params are not those of a config; gives their dtype."""
  have, wanted = (
    dict(zip(jax.tree.leaves(tree.names(x)), jax.tree.leaves(x), strict=True))
    for x in (params, leaves)
  )
  _compare(
    "params do not fit config",
    {name: leaf.shape for name, leaf in have.items()},
    {name: leaf.shape for name, leaf in wanted.items()},
  )
  dtypes = {jnp.dtype(leaf.dtype).name for leaf in have.values()}
  if len(dtypes) > 1 or not dtypes <= set(_DTYPES.values()):
    raise ValueError(
      f"params are of {', '.join(sorted(dtypes))}; they must all be of one of "
      f"{', '.join(_DTYPES.values())}."
    )
  return dtypes.pop()


def _compare(what: str, have, wanted, optional=None) -> None:
  """Raises with the names that are on one side only or differ in shape."""
  known = {**wanted, **(optional or {})}
  lists = {
    "missing": wanted.keys() - have.keys(),
    "unexpected": have.keys() - known.keys(),
    "wrong shapes": {
      f"{name} {list(have[name])}, not {list(known[name])}"
      for name in known.keys() & have.keys()
      if have[name] != known[name]
    },
  }
  words = [
    f"{kind}: {shards.listed(sorted(names))}"
    for kind, names in lists.items()
    if names
  ]
  if words:
    raise ValueError(f"{what}; {'; '.join(words)}.")


def _config_json(config: Config, extra: Mapping[str, Any]) -> bytes:
  content = architecture.entries(config)
  whole = {**content, **extra}
  if architecture.parse(whole) != architecture.parse(content):
    raise ValueError(
      f"extra has {shards.listed(extra)}; it must not change what config says."
    )
  return json.dumps(whole, indent=2).encode()


def _text_files(tokenizer: str | Path | None) -> dict[str, Path]:
  """What to copy, by the names that it gets."""
  if tokenizer is None:
    return {}
  path = Path(tokenizer)
  found = {_TOKENIZER: path}
  if path.is_dir():
    found = {name: path / name for name in (_TOKENIZER, *_BESIDE)}
  if not found[_TOKENIZER].is_file():
    raise ValueError(f"tokenizer is {path}; there is no {_TOKENIZER}.")
  return {name: file for name, file in found.items() if file.is_file()}
