"""Training of adapters on one device: tokens a second, share of its peak."""

import functools
import importlib.util
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench import timing
from junlearn import descent, language, loop, objective
from junlearn.nn.adapters import lora
from junlearn.nn.text import transformer
from junlearn.nn.text.transformer import Config
from junlearn.transform import Request

_PATTERN = "self_attn/(q|v)_proj"
_MODULES = ["q_proj", "v_proj"]
_RATE = 1e-4
_AIM_SHARE, _AIM_RATIO = 0.4, 1.2


def table(
  repeats: int,
  config: Config,
  *,
  batch_size: int,
  length: int,
  rank: int,
  steps: int,
) -> str:
  """Both sides, tokens a second and shares of the measured peak."""
  tokens = np.random.default_rng(0).integers(
    0, config.vocab_size, (batch_size, length), np.int32
  )
  sides = {"junlearn": _junlearn(config, tokens, rank=rank, steps=steps)}
  if _has_peft():
    from experiments.bench import eager_adapters

    sides["transformers, peft"] = eager_adapters.run(
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
  lines = [
    f"Adapters of rank {rank} on {' and '.join(_MODULES)}, "
    f"{transformer.num_params(config) / 1e6:.0f} M params in {config.dtype}, "
    f"batch {batch_size}x{length}; products of the device measured at "
    f"{peak / 1e12:.1f} TFLOP/s.",
    "",
    "| side | s a step | tokens a second | share of the peak | ratio | aim |",
    "|---|---|---|---|---|---|",
  ]
  for name, taken in times.items():
    seconds = statistics.median(taken)
    ratios = [a / b for a, b in zip(taken, times["junlearn"], strict=True)]
    ratio = statistics.median(ratios)
    share = work / seconds / peak
    own = name == "junlearn"
    aim = f"share {_AIM_SHARE}" if own else f"ratio {_AIM_RATIO}"
    passed = share >= _AIM_SHARE if own else ratio >= _AIM_RATIO
    lines.append(
      f"| {name} | {seconds / steps:.4f} "
      f"| {steps * tokens.size / seconds:.0f} | {share:.2f} | {ratio:.2f} "
      f"| {aim}: {'passed' if passed else 'failed'} |"
    )
  return "\n".join(lines)


def _junlearn(config, tokens, *, rank, steps):
  model = transformer.model(config)
  params = model.init(jax.random.key(0), jnp.asarray(tokens[:1, :2]))
  params = lora.attach(
    jax.random.key(1), params, _PATTERN, rank=rank, dtype=jnp.float32
  )
  adapted = lora.adapt_model(model, alpha=2 * rank)
  mask = np.ones(tokens.shape, bool)
  mask[:, 0] = False
  rows = {"input": tokens, "mask": mask, "id": np.arange(len(tokens))}
  request = Request(None, jax.tree.map(jnp.asarray, rows))
  transform = descent.descend(
    objective.weighted(language.cross_entropy(adapted), retain=1.0),
    optax.adam(_RATE),
    num_steps=steps,
    batch_size=len(tokens),
    view=lora.view(),
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

  def once():
    start = time.perf_counter()
    for _ in range(calls):
      result = product(a)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls

  return 2 * size**3 / min(once() for _ in range(3))


def _has_peft() -> bool:
  return all(
    importlib.util.find_spec(name) for name in ("torch", "transformers", "peft")
  )
