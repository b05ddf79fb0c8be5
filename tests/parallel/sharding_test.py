"""Params divided over a mesh give what one device gives."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from junlearn import language, loop, objective, tree
from junlearn.descent import descend, gradient_descent, run
from junlearn.loss import cross_entropy
from junlearn.nn.adapters.lora import Lora
from junlearn.nn.text import partition, transformer
from junlearn.parallel import sharding
from junlearn.parallel.sharding import Layout
from junlearn.transform import Request
from tests import problems

KEY = jax.random.key(2)
CONFIG = transformer.Config(
  vocab_size=32,
  hidden_size=16,
  intermediate_size=24,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  max_length=16,
  attention_bias=True,
  tie_embeddings=False,
)
MOMENTUM = optax.sgd(0.05, momentum=0.9)


def layout(axes, rules=partition.TRANSFORMER):
  return Layout(sharding.mesh(axes), rules)


def shapes(config=CONFIG):
  return jax.eval_shape(
    transformer.model(config).init, KEY, jnp.zeros((1, 1), jnp.int32)
  )


def named(params):
  flat = jax.tree_util.tree_flatten_with_path(params)[0]
  return {tree.path_name(path): leaf for path, leaf in flat}


def parts(found):
  """The axes of a spec, without trailing None."""
  spec = list(found.spec)
  while spec and spec[-1] is None:
    spec.pop()
  return tuple(spec)


@pytest.mark.parametrize(
  ("axes", "sizes"),
  [
    ("data=2,fsdp=2", (2, 2, 1)),
    ("tensor=4", (1, 1, 4)),
    (" tensor=2 , data=2", (2, 1, 2)),
    ("fsdp=4,data=1", (1, 4, 1)),
  ],
)
def test_a_mesh_is_made_from_one_line(axes, sizes):
  mesh = sharding.mesh(axes)
  assert mesh.axis_names == ("data", "fsdp", "tensor")
  assert mesh.devices.shape == sizes
  assert Layout(mesh).shards == sizes[0] * sizes[1]


@pytest.mark.parametrize(
  ("axes", "message"),
  [
    ("data=2,model=2", "'model=2' is no size.*data, fsdp, tensor"),
    ("data=2,data=2", "'data=2' is no size"),
    ("data", "'data' is no size"),
    ("fsdp=0", "'fsdp=0' is no size"),
    ("fsdp=-4", "'fsdp=-4' is no size"),
    ("", "'' is no size"),
    ("data=2,fsdp=4", "makes 8; it must be the number of devices, 4"),
    ("data=2", "makes 2; it must be"),
  ],
)
def test_other_lines_are_refused(axes, message):
  with pytest.raises(ValueError, match=message):
    sharding.mesh(axes)


RULES = (
  ("special/kernel$", P()),
  ("kernel$", P("fsdp", "tensor")),
  ("table$", P(("fsdp", "tensor"))),
)


@pytest.mark.parametrize(
  ("name", "shape", "expected"),
  [
    ("a/kernel", (6, 8), ("fsdp", "tensor")),
    ("state/trace/a/kernel", (3, 6, 8), (None, "fsdp", "tensor")),
    ("special/kernel", (6, 8), ()),  # the first rule that finds it
    ("a/kernel", (6, 7), ("fsdp",)),  # 2 does not divide 7
    ("a/kernel", (5, 7), ()),
    ("table", (8,), (("fsdp", "tensor"),)),
    ("table", (6,), ()),  # 4 does not divide 6
    ("kernel", (), ()),
    ("a/bias", (6,), ("fsdp",)),  # no rule: the largest that is divisible
    ("a/other", (4, 9, 6), (None, None, "fsdp")),
    ("a/other", (4, 4), ("fsdp",)),
    ("a/other", (3, 5), ()),
    ("count", (), ()),
  ],
)
def test_where_a_leaf_lies_by_hand(name, shape, expected):
  found = layout("fsdp=2,tensor=2", RULES)(name, shape)
  assert isinstance(found, NamedSharding)
  assert parts(found) == expected


def test_a_spec_longer_than_the_leaf_is_refused():
  with pytest.raises(ValueError, match=r"rule for a/kernel .* shape \(6,\)"):
    layout("fsdp=2,tensor=2", RULES)("a/kernel", (6,))


def test_every_leaf_of_a_transformer_has_a_rule_that_divides_it():
  where = layout("fsdp=2,tensor=2")
  two = {"fsdp", "tensor"}
  for scan_layers in (True, False):
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    params = {**shapes(config)}
    params["lora"] = jax.eval_shape(
      lambda p: Lora("_proj", 2, 1).init(KEY, p)["lora"], params
    )
    for name, leaf in named(params).items():
      assert any(re.search(pattern, name) for pattern, _ in where.rules), name
      axes = {axis for axis in where(name, leaf.shape).spec if axis}
      ends = name.split("/")[-1]
      expected = {
        "kernel": two,
        "embedding": two,
        "scale": set(),
        "bias": {"tensor"},
        "a": {"tensor"} if "o_proj" in name or "down" in name else {"fsdp"},
        "b": {"fsdp"} if "o_proj" in name or "down" in name else {"tensor"},
      }[ends]
      assert axes == expected, name


def test_placed_params_are_cut_and_whole_again():
  params = transformer.model(CONFIG).init(KEY, jnp.zeros((1, 1), jnp.int32))
  where = layout("data=2,fsdp=2")
  placed = where.place(jax.device_get(params))
  for name, leaf in named(placed).items():
    cut = 1 if name.endswith(("scale", "bias")) else 2
    assert leaf.addressable_shards[0].data.size * cut == leaf.size, name
  jax.tree.map(np.testing.assert_array_equal, placed, params)
  inside = jax.jit(where.place)(params)
  for name, leaf in named(inside).items():
    expected = named(placed)[name].sharding
    assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), name


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit])
def test_rows_of_a_batch_are_divided_over_both_axes(jit):
  where = layout("data=2,fsdp=2")
  rows = jit(where.place_rows)({"x": jnp.arange(8), "y": jnp.ones((8, 3))})
  for leaf in rows.values():
    assert leaf.addressable_shards[0].data.shape == (2, *leaf.shape[1:])


def text(n):
  rng = np.random.default_rng(n)
  mask = rng.random((n, 8)) < 0.5
  mask[:, 0], mask[:, -1] = False, True
  return {
    "input": rng.integers(2, 32, (n, 8)).astype(np.int32),
    "mask": mask,
    "id": np.arange(n, dtype=np.int32),
  }


def decoder():
  model = transformer.model(CONFIG)
  request = Request(text(16), text(24))
  params = model.init(KEY, request.forget["input"][:1])
  return params, request, language.cross_entropy(model, language.mean_nll)


def classifier():
  problem = problems.blobs()
  return problem.init(), problem.request, cross_entropy(problem.model)


@functools.cache
def of_one_device(make):
  params, request, loss = make()
  return run(steps_of(loss))(KEY, params, request)


def steps_of(loss, **options):
  return gradient_descent(
    objective.weighted(loss, retain=1.0, forget=-0.3),
    MOMENTUM,
    num_steps=4,
    batch_size=8,
    **options,
  )


CASES = {
  "rows and params": (decoder, "data=2,fsdp=2", partition.TRANSFORMER, 1),
  "heads": (decoder, "fsdp=2,tensor=2", partition.TRANSFORMER, 2),
  "automatic": (classifier, "fsdp=4", (), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_divided_descent_is_the_descent_of_one_device(case):
  make, axes, rules, microbatches = CASES[case]
  params, request, loss = make()
  whole, where = of_one_device(make), layout(axes, rules)
  descent = steps_of(loss, layout=where, microbatches=microbatches)
  start, xs = descent.init(KEY, params, request)
  assert_divided(start, where)
  data = sharding.beside(start.params, jax.tree.map(jnp.asarray, request))
  for make_loop in (loop.scan, loop.host):
    end, infos = make_loop()(descent.step, start, xs, (data, start.params))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      (end.params, infos),
      (whole.params, whole.info["steps"]),
    )
    assert_divided(end, where)
  assert optax.tree.norm(optax.tree.sub(whole.params, params)) > 1e-2


def assert_divided(state, where):
  """Every leaf lies where it belongs; matrices are cut, momentum as params."""
  for name, leaf in named(state).items():
    expected = where(name, leaf.shape)
    assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), name
    if name.endswith(("kernel", "embedding")):
      ways = where.mesh.shape["fsdp"] * where.mesh.shape["tensor"]
      pieces = {shard.data.size for shard in leaf.addressable_shards}
      assert pieces == {leaf.size // ways}, name


def test_the_batch_is_computed_where_its_rows_lie():
  seen = []

  def loss(params, examples, key=None):
    del key
    jax.debug.inspect_array_sharding(
      examples["x"], callback=lambda found: seen.append(found)
    )
    return jnp.square(examples["x"] @ params), params

  result = descend(
    objective.weighted(loss, retain=1.0),
    MOMENTUM,
    num_steps=2,
    batch_size=8,
    layout=layout("data=2,fsdp=2", ()),
  )(
    KEY,
    np.ones(4, np.float32),
    Request(None, {"x": np.ones((16, 4), np.float32)}),
  )
  assert result.params.addressable_shards[0].data.shape == (2,)
  assert seen
  assert all(found.shard_shape((8, 4)) == (2, 4) for found in seen)


def test_batches_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match=r"batch_size is 6; .* multiple of 4"):
    gradient_descent(
      objective.weighted(cross_entropy(problems.blobs().model), retain=1.0),
      MOMENTUM,
      num_steps=1,
      batch_size=6,
      layout=layout("data=2,fsdp=2"),
    )


def test_what_lies_on_no_mesh_moves_nothing():
  examples = {"x": jnp.ones(3)}
  assert sharding.beside({"w": jnp.ones(3)}, examples) is examples
  placed = sharding.replicated().place({"w": np.ones(3)})
  moved = sharding.beside(placed, examples)["x"]
  assert len(moved.sharding.device_set) == 4
  assert moved.sharding.is_fully_replicated
