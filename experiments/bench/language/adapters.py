"""Training of adapters on a device: tokens a second, fraction of its peak."""

import functools
import importlib.util
import statistics
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench import timing
from experiments.run import tables
from junlearn import descent, language, loop, objective
from junlearn.nn.adapters.lora import Lora
from junlearn.nn.text import transformer
from junlearn.nn.text.transformer import Config
from junlearn.transform import Request

_PATTERN = "self_attn/(q|v)_proj"
_MODULES = ["q_proj", "v_proj"]
_RATE = 1e-4
_AIM_FRACTION, _AIM_RATIO = 0.4, 1.2


def table(
  repeats: int,
  config: Config,
  *,
  batch_size: int,
  length: int,
  rank: int,
  steps: int,
) -> Iterator[str]:
  """Both sides, tokens a second and fractions of the measured peak."""
  tokens = np.random.default_rng(0).integers(
    0, config.vocab_size, (batch_size, length), np.int32
  )
  sides = {"junlearn": _junlearn(config, tokens, rank=rank, steps=steps)}
  if _has_peft():
    from experiments.bench.eager import adapters

    sides["transformers, peft"] = adapters.run(
      config,
      *(tokens, _MODULES),
      rank=rank,
      steps=steps,
      learning_rate=_RATE,
    )
  for work in sides.values():
    work()  # compiles
  peak = _peak(config.dtype)
  times = timing.alternate(sides, repeats)
  work = steps * tokens.size * _flops_per_token(config, length)
  yield (
    f"Adapters of rank {rank} on {' and '.join(_MODULES)}, "
    f"{transformer.num_params(config) / 1e6:.0f} M params in {config.dtype}, "
    f"batch {batch_size}x{length}; products of the device measured at "
    f"{peak / 1e12:.1f} TFLOP/s."
  )
  yield ""
  yield from tables.header([
    "side", "s a step", "tokens a second", "fraction of the peak",
    "ratio", "aim", "",
  ])  # fmt: skip
  for name, taken in times.items():
    seconds = statistics.median(taken)
    ratio = timing.ratio(taken, times["junlearn"]).median
    fraction = work / seconds / peak
    if name == "junlearn":
      aim, passed = f"fraction {_AIM_FRACTION}", fraction >= _AIM_FRACTION
    else:
      aim, passed = f"ratio {_AIM_RATIO}", ratio >= _AIM_RATIO
    yield tables.row(
      [
        *(name, f"{seconds / steps:.4f}"),
        f"{steps * tokens.size / seconds:.0f}",
        *(f"{fraction:.2f}", f"{ratio:.2f}", aim, tables.verdict(passed)),
      ]
    )


def _junlearn(config, tokens, *, rank, steps):
  model = transformer.model(config)
  params = model.init(jax.random.key(0), jnp.asarray(tokens[:1, :2]))
  adapters = Lora(_PATTERN, rank, 2 * rank)
  params = adapters.init(jax.random.key(1), params, dtype=jnp.float32)
  adapted = adapters.model(model)
  mask = np.ones(tokens.shape, bool)
  mask[:, 0] = False
  rows = {"input": tokens, "mask": mask, "id": np.arange(len(tokens))}
  request = Request(None, jax.tree.map(jnp.asarray, rows))
  transform = descent.descend(
    objective.weighted(language.cross_entropy(adapted), retain=1.0),
    optax.adam(_RATE),
    num_steps=steps,
    batch_size=len(tokens),
    view=adapters.view(),
    loop=loop.scan(),
  )
  return lambda: jax.block_until_ready(
    transform(jax.random.key(2), params, request)
  )


def _flops_per_token(config: Config, length: int) -> float:
  """Of products: forward, and backward with respect to activations alone.

  The adapters' own are left out; attention counts the causal half.
  """
  kernels = transformer.num_params(config)
  if not config.tie_embeddings:
    kernels -= config.vocab_size * config.hidden_size  # read, not multiplied
  width = config.num_heads * config.size_of_head
  # Scores and means: 2 products forward, 4 backward, of half the positions.
  attention = 6 * width * length * config.num_layers
  return 4 * kernels + attention


def _peak(dtype: str, size: int = 8192, calls: int = 10) -> float:
  """FLOP/s of large products, the best of some calls."""
  if jax.default_backend() == "cpu":
    size = 512
  a = jnp.ones((size, size), dtype)
  product = jax.jit(functools.partial(jnp.matmul, a))
  jax.block_until_ready(product(a))

  def work():
    for _ in range(calls):
      result = product(a)
    jax.block_until_ready(result)

  times = timing.alternate({"products": work}, 3)["products"]
  return 2 * size**3 * calls / min(times)


def _has_peft() -> bool:
  return all(
    importlib.util.find_spec(name) for name in ("torch", "transformers", "peft")
  )
