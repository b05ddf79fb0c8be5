"""Clients on one device, or spread over all devices and processes."""

from collections.abc import Callable
from typing import Any

import jax

from junlearn import tree
from junlearn.parallel import processes
from junlearn.parallel.across import Backend
from junlearn.transform import Result, Transform


def compiled(function: Callable, backend: Backend) -> Callable:
  """The function, compiled unless its clients' programs are."""
  return function if backend == "pmap" else jax.jit(function)


def everywhere(transform: Transform, backend: Backend) -> Transform:
  """The transform of stacked params, over all processes of the job."""
  if backend != "pmap":
    return transform

  def spread(key, params, request):
    result = transform(key, *local_shard((params, request)))
    return Result(processes.gather(result.params), request, result.info)

  return spread


def local_shard(everything: Any) -> Any:
  """The rows of this process's clients.

  From the host, because pmap refuses arrays that jit has put on its devices.
  """
  rows = processes.local_shard(tree.size(everything))
  return tree.take(jax.device_get(everything), rows)
