"""Reference models of an attack, trained as one population.

All members share one array of examples and one compiled program; each sees
the rows that its 0/1 weights leave.
"""

import jax
import jax.numpy as jnp
import optax

from junlearn import descent as descents
from junlearn import objective, tree
from junlearn.loop import Loop
from junlearn.loss import cross_entropy
from junlearn.model import Model
from junlearn.parallel import processes
from junlearn.parallel.across import Backend, fastest
from junlearn.transform import Request, Result, stage_key
from junlearn.typing import Examples, Key


def train(
  key: Key,
  model: Model,
  optimizer: optax.GradientTransformation,
  examples: Examples,
  membership: jax.Array,
  *,
  num_steps: int,
  batch_size: int,
  loop: Loop | None = None,
  backend: Backend | None = None,
) -> Result:
  """Trains one model per row of `membership`, from fresh params.

  Member `k` starts from its own key, `split(key, members)[k]`, and minimizes
  the mean cross-entropy over the examples with `membership[k] = 1`. In a job of
  several processes each trains its own block of members, and all get the whole
  population.

  Args:
    key: PRNG key.
    model: the model.
    optimizer: of every member.
    examples: dict of arrays `[n, ...]` with `input` and `label`.
    membership: 0/1 `[members, n]`.
    num_steps: steps of every member.
    batch_size: examples a step of every member.
    loop: `loop.scan()` by default.
    backend: how the members are run, see `across`; by default `fastest`.

  Returns:
    The result with stacked params; `info["steps"]` is `[num_steps, members]`.

  Raises:
    ValueError: if `membership` has another shape, or several processes do not
      divide its members.
  """
  n = examples["label"].shape[0]
  if membership.ndim != 2 or membership.shape[1] != n:
    raise ValueError(
      f"membership has shape {membership.shape}; it must be [members, {n}]."
    )
  shared = {name: examples[name] for name in ("input", "label")}
  rows = processes.local_shard(membership.shape[0])
  weight = jnp.asarray(membership, jnp.float32)
  request = Request(forget=None, retain={**shared, "weight": weight[rows]})
  axes = Request(forget=None, retain={**dict.fromkeys(shared), "weight": 0})
  keys = jax.random.split(stage_key(key, "members"), membership.shape[0])[rows]
  first = jnp.asarray(examples["input"][:1])
  # One by one: `init` is most likely compiled already, its `vmap` is not.
  params = tree.stack([model.init(key, first) for key in keys])
  member = descents.gradient_descent(
    objective.weighted(cross_entropy(model), retain=1.0),
    optimizer,
    num_steps=num_steps,
    batch_size=batch_size,
  )
  population = descents.population(
    member, axes, backend=backend or fastest(len(keys))
  )
  result = descents.run(population, loop)(keys, params, request)
  finite = processes.gather(result.info["finite"][None])
  return Result(
    processes.gather(result.params),
    Request(forget=None, retain={**shared, "weight": weight}),
    {
      "steps": processes.gather(result.info["steps"], axis=1),
      "finite": jnp.all(finite),
    },
  )
