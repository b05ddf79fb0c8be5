"""Strict settings for all tests; they must hold before JAX starts."""

import os

import jax
import pytest

# Compiling takes most of the time of the tests, and programs that run once are
# not worth optimizing: with no optimizations of LLVM's, the plainer emitters of
# fused kernels and all kernels in one module it takes a third of it. Devices of
# a busy machine reach a collective at very different times, and XLA aborts when
# they are further apart than this (40 s by default).
PLAIN_EMITTERS = "--xla_cpu_use_fusion_emitters=false"  # gone in JAX 0.11
os.environ["XLA_FLAGS"] = " ".join(
  (
    os.environ.get("XLA_FLAGS", ""),
    "--xla_backend_optimization_level=0",
    PLAIN_EMITTERS if jax.__version_info__ < (0, 11) else "",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
    "--xla_cpu_collective_timeout_seconds=600",
  )
)
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
  """Runs a test in double precision."""
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
  """Compiled programs of a module do not add up to gigabytes in a worker."""
  yield
  jax.clear_caches()
