import dataclasses
import json
import os
import re
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors import numpy as safetensors

from junlearn import tree
from junlearn.nn.text import pretrained, transformer

SIZES = {
  "vocab_size": 96,
  "hidden_size": 32,
  "intermediate_size": 80,
  "num_hidden_layers": 4,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 64,
  "rms_norm_eps": 1e-5,
}
LLAMA3 = {
  "rope_type": "llama3",
  "rope_theta": 500.0,
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 16,
}
TOKENS = np.random.default_rng(0).integers(0, 96, (2, 40), np.int32)
CONFIG = transformer.Config(
  vocab_size=16,
  hidden_size=8,
  intermediate_size=12,
  num_layers=10,
  num_heads=2,
  num_kv_heads=1,
)
UP = "model.layers.{}.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def hub():
  """transformers, which must not look for a network."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("TRANSFORMERS_OFFLINE", "1")
    patch.setenv("TRANSFORMERS_VERBOSITY", "error")
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    yield transformers


def oracle(hub, name, dtype="float32", **options):
  """A random model; norms and biases too, which start as 1 and 0."""
  import torch

  torch.manual_seed(0)
  config = getattr(hub, f"{name}Config")(**{**SIZES, **options})
  model = getattr(hub, f"{name}ForCausalLM")(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      noise = torch.randn_like(parameter)
      parameter.add_(noise * (0.1 if parameter.ndim == 1 else 0.15))
  return model.to(getattr(torch, dtype))


def logits_of(model):
  import torch

  with torch.no_grad():
    return model(torch.tensor(TOKENS).long()).logits.float().numpy()


def logits(config, params):
  return np.asarray(transformer.model(config).apply(params, TOKENS)[0])


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  assert tree.digest(a) == tree.digest(b)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    ("Llama", {"rope_parameters": LLAMA3, "head_dim": 16}),
    ("Mistral", {"sliding_window": None}),
    ("Qwen2", {"tie_word_embeddings": True}),
    ("Qwen2", {}),
  ],
  ids=["llama-tied", "llama", "mistral", "qwen2-tied", "qwen2"],
)
def test_logits_are_those_of_transformers_in_and_out(
  hub, tmp_path, name, options
):
  model = oracle(hub, name, **options)
  expected = logits_of(model)
  model.save_pretrained(tmp_path / "in")
  config, params = pretrained.load(tmp_path / "in")
  assert pretrained.config(tmp_path / "in") == config
  found = logits(config, params)
  assert np.std(expected) > 0.5  # else a wrong angle would not be seen
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  pretrained.save(tmp_path / "out", config, params)
  back = hub.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
  np.testing.assert_array_equal(logits_of(back), expected)
  assert back.config.bos_token_id is None
  assert back.config.eos_token_id is None
  config_back, params_back = pretrained.load(tmp_path / "out")
  assert config_back == config
  assert_equal(params_back, params)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_shards_and_unrolled_layers(hub, tmp_path, scan_layers):
  model = oracle(hub, "Llama")
  model.save_pretrained(tmp_path / "in", max_shard_size="30KB")
  assert len(list((tmp_path / "in").glob("model-*"))) > 2
  config, params = pretrained.load(tmp_path / "in", scan_layers=scan_layers)
  assert ("layers_3" in params["params"]) != scan_layers
  expected = logits_of(model)
  np.testing.assert_allclose(
    logits(config, params), expected, rtol=0, atol=1e-5
  )
  out = tmp_path / "out"
  pretrained.save(out, config, params, max_shard_bytes=30_000)
  sizes = [file.stat().st_size for file in out.glob("model-*.safetensors")]
  assert len(sizes) > 2
  assert max(sizes) < 30_000 + 2_000  # the header
  assert len({file.stat().st_mode for file in out.iterdir()}) == 1
  back = hub.AutoModelForCausalLM.from_pretrained(out)
  np.testing.assert_array_equal(logits_of(back), expected)
  assert_equal(pretrained.load(out, scan_layers=scan_layers)[1], params)


def test_bfloat16_is_kept_or_cast_exactly(hub, tmp_path):
  model = oracle(hub, "Llama", "bfloat16")
  model.save_pretrained(tmp_path / "in")
  config, params = pretrained.load(tmp_path / "in")
  assert config.dtype == config.param_dtype == "bfloat16"
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
  wide, cast = pretrained.load(tmp_path / "in", dtype=np.float32)
  assert wide.dtype == wide.param_dtype == "float32"
  assert_equal(jax.tree.map(lambda x: x.astype(np.float32), params), cast)
  # Cast in place, the oracle would keep the angles that bfloat16 has rounded.
  model = hub.AutoModelForCausalLM.from_pretrained(
    tmp_path / "in", dtype="float32"
  )
  np.testing.assert_allclose(
    logits(wide, cast), logits_of(model), rtol=0, atol=1e-5
  )
  pretrained.save(tmp_path / "out", config, params)
  with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as f:
    assert f.metadata() == {"format": "pt"}
  before, after = (
    safetensors.load_file(tmp_path / name / "model.safetensors")
    for name in ("in", "out")
  )
  assert before.keys() == after.keys()
  for name, tensor in before.items():
    assert tensor.dtype == ml_dtypes.bfloat16
    assert after[name].dtype == tensor.dtype
    assert after[name].tobytes() == tensor.tobytes()
  back = hub.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
  assert str(back.dtype) == "torch.bfloat16"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A folder of ours with its params, all of them different."""
  folder = tmp_path_factory.mktemp("written") / "model"
  params = fresh(CONFIG)
  pretrained.save(folder, CONFIG, params, max_shard_bytes=4_000)
  return folder, params


def fresh(config, dtype=np.float32):
  shapes = jax.eval_shape(
    transformer.model(config).init,
    jax.random.key(0),
    jnp.zeros((1, 1), jnp.int32),
  )
  generator = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: generator.normal(size=leaf.shape).astype(dtype), shapes
  )


@pytest.fixture
def folder(written, tmp_path):
  """A copy to damage."""
  return shutil.copytree(written[0], tmp_path / "model")


def edit_config(folder, **entries):
  path = folder / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def edit_tensors(folder, change):
  """Writes all tensors again, in one file."""
  tensors = {}
  for file in sorted(folder.glob("*.safetensors")):
    tensors |= safetensors.load_file(file)
    file.unlink()
  change(tensors)
  safetensors.save_file(tensors, folder / "model.safetensors")


def refused(folder, *words, **options):
  with pytest.raises(ValueError, match=r"\.$") as info:
    pretrained.load(folder, **options)
  for word in words:
    assert word in str(info.value)


MESH = jax.make_mesh(
  (2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2
)


def by_shape(name, shape):
  """Layers and outputs are cut; of vectors the last axis."""
  if name.endswith("kernel") and len(shape) == 3:
    return NamedSharding(MESH, P("a", None, "b"))
  return NamedSharding(MESH, P(*[None] * (len(shape) - 1), "b"))


def test_each_device_reads_its_slice(written, monkeypatch):
  path, params = written
  read = []
  original = pretrained.shards.Tensor.read

  def recorded(tensor, index):
    values = original(tensor, index)
    read.append((tensor.name, values.shape))
    return values

  monkeypatch.setattr(pretrained.shards.Tensor, "read", recorded)
  _, loaded = pretrained.load(path, sharding=by_shape)
  assert_equal(loaded, params)
  kernel = loaded["params"]["layers"]["mlp"]["up_proj"]["kernel"]
  assert kernel.sharding == by_shape("kernel", kernel.shape)
  # [out, in] is [12, 8]; each of 10 layers is on 2 devices, in halves of `out`.
  ups = [each for each in read if "up_proj" in each[0]]
  assert sorted(ups) == sorted(
    (UP.format(i), (6, 8)) for i in range(10) for _ in range(2)
  )


@pytest.mark.parametrize("kind", ["replicated", "inputs", "tree", "unrolled"])
def test_shardings(written, kind):
  path, params = written
  replicated = NamedSharding(MESH, P())
  scan_layers = kind != "unrolled"
  if not scan_layers:
    params = transformer.unstack(params)
  sharding = {
    "replicated": replicated,
    "inputs": lambda name, shape: (
      NamedSharding(MESH, P(*[None] * (len(shape) - 2), ("a", "b"), None))
      if name.endswith("mlp/up_proj/kernel")
      else replicated
    ),
    "tree": tree.map_leaves(lambda name, x: by_shape(name, x.shape), params),
    "unrolled": by_shape,
  }[kind]
  _, loaded = pretrained.load(path, sharding=sharding, scan_layers=scan_layers)
  assert_equal(loaded, params)
  assert all(len(x.sharding.device_set) == 4 for x in jax.tree.leaves(loaded))


def test_sharded_params_are_saved(written, tmp_path):
  path, params = written
  config, loaded = pretrained.load(path, sharding=by_shape)
  pretrained.save(tmp_path / "out", config, loaded)
  assert_equal(pretrained.load(tmp_path / "out")[1], params)


def test_without_sharding_params_go_where_the_data_are(written):
  _, loaded = pretrained.load(written[0])
  assert not any(leaf.committed for leaf in jax.tree.leaves(loaded))


def test_float64_needs_x64(folder, x64):
  _, wide = pretrained.load(folder, dtype="float64")
  assert wide["params"]["norm"]["scale"].dtype == np.float64
  with jax.enable_x64(False):
    refused(folder, "dtype is float64", "bfloat16", dtype="float64")


def test_dtype_is_floating(folder):
  refused(folder, "dtype is int8", dtype="int8")


def test_a_tied_head_may_be_stored_if_equal(tmp_path):
  config = dataclasses.replace(CONFIG, vocab_size=1100, num_layers=1)
  folder = tmp_path / "model"
  pretrained.save(folder, config, fresh(config))
  head = "lm_head.weight"
  embedding = "model.embed_tokens.weight"

  def equal(tensors):
    tensors[head] = tensors[embedding]

  edit_tensors(folder, equal)
  assert "lm_head" not in pretrained.load(folder)[1]["params"]

  def other(tensors):
    tensors[head] = tensors[embedding].copy()
    tensors[head][-1, -1] += 1

  edit_tensors(folder, other)
  refused(folder, head, embedding, "differs")


def test_old_angles_are_ignored(written, folder):
  def add(tensors):
    for i in range(10):
      name = f"model.layers.{i}.self_attn.rotary_emb.inv_freq"
      tensors[name] = np.ones(2, np.float16)

  edit_tensors(folder, add)
  assert_equal(pretrained.load(folder)[1], written[1])


def test_no_checkpoint(folder, tmp_path):
  refused(tmp_path / "nowhere", "is no checkpoint", "config.json")
  for file in folder.glob("*.safetensors*"):
    file.unlink()
  (folder / "pytorch_model.bin").write_bytes(b"pickled")
  refused(folder, "is no checkpoint", "model.safetensors")


@pytest.mark.parametrize("content", ["{", "[]", "{}", "\xff"])
@pytest.mark.parametrize(
  "name", ["config.json", "model.safetensors.index.json"]
)
def test_json_is_damaged(folder, name, content):
  (folder / name).write_text(content, encoding="latin-1")
  refused(folder, str(folder))


def test_mismatched_tensors_are_listed(folder):
  def change(tensors):
    for i in range(10):
      del tensors[UP.format(i)]
    tensors["model.layers.10.mlp.up_proj.weight"] = np.ones((12, 8), np.float32)
    tensors["model.norm.weight"] = np.ones(7, np.float32)

  edit_tensors(folder, change)
  names = ", ".join(UP.format(i) for i in range(8))
  refused(
    folder,
    f"missing: {names}, ... (10 in all);",
    "unexpected: model.layers.10.mlp.up_proj.weight;",
    "wrong shapes: model.norm.weight [7], not [8].",
  )


def test_a_transposed_weight_is_refused(folder):
  def change(tensors):
    tensors[UP.format(3)] = np.ascontiguousarray(tensors[UP.format(3)].T)

  edit_tensors(folder, change)
  refused(folder, f"wrong shapes: {UP.format(3)} [8, 12], not [12, 8].")


def test_shards_are_missing(folder):
  gone = sorted(folder.glob("*.safetensors"))[1:3]
  for file in gone:
    file.unlink()
  refused(folder, f"lacks {gone[0].name}, {gone[1].name}, which")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_shard_is_truncated(folder, size):
  file = sorted(folder.glob("*.safetensors"))[1]
  content = file.read_bytes()
  file.write_bytes(content[:size])
  refused(folder, file.name, "damaged")


def test_dtypes_that_are_mixed_or_not_floating(folder):
  def mix(tensors):
    tensors["model.norm.weight"] = np.ones(8, ml_dtypes.bfloat16)

  edit_tensors(folder, mix)
  refused(folder, "BF16, F32")
  config, params = pretrained.load(folder, dtype="float16")
  assert config.param_dtype == "float16"
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float16"}

  def quantize(tensors):
    tensors["model.norm.weight"] = np.ones(8, np.int8)

  edit_tensors(folder, quantize)
  refused(folder, "I8", dtype="float32")


def test_sharding_of_another_structure(folder):
  sharding = {"params": NamedSharding(MESH, P())}
  refused(folder, "sharding has another structure", sharding=sharding)


@pytest.mark.parametrize(
  ("entries", "words"),
  [
    (
      {"architectures": ["GPT2LMHeadModel"]},
      ["GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2"],
    ),
    ({"architectures": None}, ["architectures is []"]),
    ({"hidden_act": "gelu"}, ["hidden_act 'gelu'", "'silu'"]),
    ({"mlp_bias": True}, ["mlp_bias True"]),
    ({"attention_bias": True}, ["attention_bias True"]),
    ({"use_sliding_window": True}, ["use_sliding_window True"]),
    ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor 0.5"]),
    ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
    ({"layer_types": ["sliding_attention"]}, ["sliding_attention"]),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ["'linear'"]),
    ({"rope_scaling": {"rope_type": "yarn"}}, ["rope_type 'yarn'"]),
    (
      {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
      ["lacks", "low_freq_factor", "original_max_position_embeddings"],
    ),
    ({"hidden_size": None}, ["lacks hidden_size"]),
    ({"vocab_size": "many"}, ["wrong type"]),
    ({"rope_scaling": [1]}, ["wrong type"]),
    ({"torch_dtype": "int8"}, ["int8"]),
    (
      {"architectures": ["MistralForCausalLM"], "sliding_window": 2047},
      ["sliding_window 2047", "2048"],
    ),
    ({"architectures": ["MistralForCausalLM"]}, ["sliding_window 4096"]),
  ],
  ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_named(folder, entries, words):
  if words == ["sliding_window 4096"]:
    entries = {**entries, "max_position_embeddings": 8192}
  edit_config(folder, **entries)
  refused(folder, "config.json", *words)


def test_several_unsupported_options_are_named_together(folder):
  edit_config(folder, hidden_act="relu", mlp_bias=True)
  refused(folder, "hidden_act 'relu'", "mlp_bias True")


def test_a_window_as_long_as_the_context_is_none(folder, written):
  edit_config(folder, architectures=["MistralForCausalLM"], sliding_window=2048)
  assert_equal(pretrained.load(folder)[1], written[1])


def test_both_forms_of_the_rotary_entries(folder):
  scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
  edit_config(folder, rope_theta=500.0, rope_scaling=scaling)
  old = pretrained.config(folder)
  edit_config(
    folder, rope_scaling=None, rope_theta=None, rope_parameters=LLAMA3
  )
  assert pretrained.config(folder) == old
  assert old.rope_theta == 500.0
  assert old.rope_scaling == transformer.Llama3Scaling(8.0, 1.0, 4.0, 16)


def test_a_folder_is_not_overwritten(folder, written):
  with pytest.raises(ValueError, match="new or an empty folder"):
    pretrained.save(folder, CONFIG, written[1])
  file = folder / "config.json"
  with pytest.raises(ValueError, match="new or an empty folder"):
    pretrained.save(file, CONFIG, written[1])


def test_an_interrupted_save_leaves_nothing(tmp_path, written, monkeypatch):
  def full(*args, **kwargs):
    raise OSError(28, "No space left on device")

  out = tmp_path / "out"
  out.mkdir()
  with monkeypatch.context() as patch:
    patch.setattr(pretrained.shards.safetensors_numpy, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
      pretrained.save(out, CONFIG, written[1])
  assert [path.name for path in tmp_path.iterdir()] == ["out"]
  (tmp_path / "out.partial").mkdir()
  (tmp_path / "out.partial" / "stale").touch()
  pretrained.save(out, CONFIG, written[1])
  assert {path.name for path in out.iterdir()} == {
    "config.json",
    "model.safetensors",
  }
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_params_that_do_not_fit_are_listed(tmp_path, written):
  other = dataclasses.replace(CONFIG, tie_embeddings=False, hidden_size=12)
  with pytest.raises(ValueError, match="do not fit config") as info:
    pretrained.save(
      tmp_path / "out", other, {**written[1], "lora": {"a": np.ones(2)}}
    )
  for word in (
    "missing: params/lm_head/kernel;",
    "unexpected: lora/a;",
    "params/embed_tokens/embedding [16, 8], not [16, 12]",
  ):
    assert word in str(info.value)
  assert not list(tmp_path.iterdir())


def test_params_of_two_dtypes(tmp_path, written):
  params = {"params": dict(written[1]["params"])}
  params["params"]["norm"] = {"scale": np.ones(8, np.float16)}
  with pytest.raises(ValueError, match=r"float16, float32; they must"):
    pretrained.save(tmp_path / "out", CONFIG, params)


def test_extra_entries(tmp_path, written):
  out = tmp_path / "out"
  pretrained.save(out, CONFIG, written[1], extra={"eos_token_id": 1})
  assert json.loads((out / "config.json").read_text())["eos_token_id"] == 1
  for wrong in ({"vocab_size": 2}, {"head_dim": 8}, {"rope_theta": 5.0}):
    with pytest.raises(
      ValueError, match=re.escape(f"extra has {next(iter(wrong))};")
    ):
      pretrained.save(tmp_path / "b", CONFIG, written[1], extra=wrong)


def test_tokenizers_are_copied(tmp_path, written):
  text = tmp_path / "text"
  text.mkdir()
  with pytest.raises(ValueError, match=re.escape(os.fspath(text))):
    pretrained.save(tmp_path / "a", CONFIG, written[1], tokenizer=text)
  for name in ("tokenizer.json", "generation_config.json", "config.json"):
    (text / name).write_text(name)
  pretrained.save(tmp_path / "a", CONFIG, written[1], tokenizer=text)
  pretrained.save(
    tmp_path / "b", CONFIG, written[1], tokenizer=text / "tokenizer.json"
  )
  assert (tmp_path / "a" / "generation_config.json").is_file()
  assert (tmp_path / "b" / "tokenizer.json").read_text() == "tokenizer.json"
  assert not (tmp_path / "b" / "generation_config.json").exists()
  assert pretrained.config(tmp_path / "a") == CONFIG


def test_shard_size_is_positive(tmp_path, written):
  with pytest.raises(ValueError, match="max_shard_bytes is 0"):
    pretrained.save(tmp_path / "a", CONFIG, written[1], max_shard_bytes=0)
