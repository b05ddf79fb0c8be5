"""Adapters written for PEFT, read by PEFT, and the other way round."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from junlearn.nn.adapters import lora
from junlearn.nn.adapters.lora import Lora
from junlearn.nn.text import pretrained, transformer

KEY = jax.random.key(0)
ALPHA, RANK = 12.0, 3
CONFIG = transformer.Config(
  vocab_size=31,
  hidden_size=16,
  intermediate_size=24,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  max_length=16,
  tie_embeddings=False,
)
TOKENS = jax.random.randint(KEY, (2, 9), 0, CONFIG.vocab_size)
ADAPTERS = Lora("q_proj|v_proj|down_proj|lm_head", RANK, ALPHA)


def base(config=CONFIG):
  return transformer.model(config).init(KEY, TOKENS)


def trained(params, adapters=ADAPTERS):
  params = adapters.init(KEY, params)
  noise = lambda b: jax.random.normal(KEY, b.shape, b.dtype) / 4  # noqa: E731
  return {**params, "lora": jax.tree.map(noise, params["lora"])}


def logits(params, adapters=ADAPTERS):
  model = adapters.model(transformer.model(CONFIG))
  return model.apply(params, TOKENS)[0]


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture
def llama(tmp_path):
  """The model as transformers reads it."""
  pytest.importorskip("peft")
  transformers = pytest.importorskip("transformers")
  folder = tmp_path / "base"
  pretrained.save(folder, CONFIG, base())
  return transformers.LlamaForCausalLM.from_pretrained(folder)


# Of PEFT's own use of transformers.
deprecated = pytest.mark.filterwarnings(
  "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


def torch_logits(model):
  import torch

  with torch.no_grad():
    return model(torch.from_numpy(np.array(TOKENS, np.int64))).logits.numpy()


@deprecated
def test_peft_reads_what_we_write(llama, tmp_path):
  from peft import PeftModel

  params = trained(base())
  ADAPTERS.export(tmp_path / "adapter", params)
  model = PeftModel.from_pretrained(llama, tmp_path / "adapter").eval()
  expected = logits(params)
  assert np.abs(expected - logits(ADAPTERS.drop(params))).max() > 0.1
  np.testing.assert_allclose(torch_logits(model), expected, atol=1e-4)


@deprecated
def test_we_read_what_peft_writes(llama, tmp_path):
  import torch
  from peft import LoraConfig, get_peft_model

  model = get_peft_model(
    llama,
    LoraConfig(
      r=RANK,
      lora_alpha=5,
      target_modules=["k_proj", "o_proj", "gate_proj", "up_proj"],
      task_type="CAUSAL_LM",
    ),
  ).eval()
  torch.manual_seed(0)
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if "lora_B" in name:
        weight.normal_(std=0.3)
  model.save_pretrained(tmp_path / "theirs")
  params, adapters = lora.load(tmp_path / "theirs", base())
  assert (adapters.rank, adapters.alpha) == (RANK, 5)
  found = logits(params, adapters)
  np.testing.assert_allclose(torch_logits(model), found, atol=1e-4)
  again = adapters.init(KEY, base())  # the same layers
  assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stacked_and_unrolled_params_share_a_format(tmp_path, dtype):
  params = trained(jax.tree.map(lambda leaf: leaf.astype(dtype), base()))
  adapters = Lora(ADAPTERS.pattern, RANK, 2.5)
  adapters.export(tmp_path, params)
  back, found = lora.load(tmp_path, adapters.drop(params))
  assert (found.rank, found.alpha) == (RANK, 2.5)
  assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(back))
  assert_equal(back, params)
  apart = transformer.unstack(adapters.drop(params))
  unrolled, found = lora.load(tmp_path, apart)
  assert_equal(transformer.stack(unrolled), params)
  found.export(tmp_path / "again", unrolled)
  for name in ("adapter_config.json", "adapter_model.safetensors"):
    first, second = (d / name for d in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


def test_some_layers_of_an_unrolled_model(tmp_path):
  config = dataclasses.replace(CONFIG, scan_layers=False)
  adapters = Lora("layers_1/mlp/up", RANK, ALPHA)
  params = trained(base(config), adapters)
  adapters.export(tmp_path, params, base="some/model")
  found = json.loads((tmp_path / "adapter_config.json").read_text())
  assert found["target_modules"] == ["model.layers.1.mlp.up_proj"]
  assert found["base_model_name_or_path"] == "some/model"
  assert_equal(lora.load(tmp_path, base(config))[0], params)
  with pytest.raises(ValueError, match=r"layers\.0\.mlp.*lora_A.* is missing"):
    lora.load(tmp_path, base())  # a stack has adapters on all layers or none


def test_export_refuses(tmp_path):
  with pytest.raises(ValueError, match="no adapters"):
    ADAPTERS.export(tmp_path, base())
  params = trained(base())
  other = Lora("lm_head", 1, ALPHA).init(KEY, base())["lora"]
  mixed = {**params, "lora": {**params["lora"], **other}}
  with pytest.raises(ValueError, match="'lm_head' have the rank 1, not 3"):
    ADAPTERS.export(tmp_path, mixed)
  params = {"params": {"Dense_0": {"kernel": jnp.ones((4, 3))}}}
  adapters = Lora("", 1, ALPHA)
  with pytest.raises(ValueError, match="'Dense_0' have no place"):
    adapters.export(tmp_path, adapters.init(KEY, params))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"use_dora": True}, r"has use_dora True \(supported is False\)"),
    ({"rank_pattern": {"q": 4}}, r"has rank_pattern \{'q': 4\} \(supported"),
    ({"lora_alpha": None}, "must be a JSON object with the numbers r and"),
    ({"r": 2}, r"lora_A\.weight \[3, 24\], not \[2, 24\]"),
  ],
  ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_load_refuses_configs(tmp_path, change, message):
  ADAPTERS.export(tmp_path, trained(base()))
  path = tmp_path / "adapter_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(ValueError, match=message):
    lora.load(tmp_path, base())


def test_load_refuses_files(tmp_path):
  with pytest.raises(ValueError, match="has no adapter_config"):
    lora.load(tmp_path, base())
  params = trained(base())
  ADAPTERS.export(tmp_path, params)
  with pytest.raises(ValueError, match="have adapters; merge or drop"):
    lora.load(tmp_path, params)
  path = tmp_path / "adapter_model.safetensors"
  tensors = safetensors.numpy.load_file(path)
  tensors["model.norm.lora_A.weight"] = tensors.popitem()[1]
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(
    ValueError, match=r"\.weight is missing; model\.norm\..* is unexpected"
  ):
    lora.load(tmp_path, base())
  safetensors.numpy.save_file({}, path)
  with pytest.raises(ValueError, match="fit the params: it has no adapters"):
    lora.load(tmp_path, base())
  path.write_bytes(path.read_bytes()[:5])
  with pytest.raises(
    ValueError, match=r"adapter_model\.safetensors is damaged"
  ):
    lora.load(tmp_path, base())
  path.unlink()
  with pytest.raises(ValueError, match="has no adapter_model"):
    lora.load(tmp_path, base())
