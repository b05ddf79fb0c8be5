r"""One process of several that run the same program, as on a pod.

    python -m experiments.classification --coordinator_address=10.0.0.1:1234 \
      --num_processes=2 --process_id=0  # on the first machine, 1 on the second

or, where JAX finds the three values itself (TPU pods, Slurm, Open MPI,
Kubernetes), the same command with `--multiprocess` on all machines.

The first process writes the folder of the run and its report; the others need
none of its disk. Each reads the data set from its own `--data_dir`. When a
process ends early, so do the others; all started again, they continue. When it
is the first one that ends, JAX aborts the others in words of its own.
"""

import faulthandler
import os
import re
import sys
import threading
from typing import NoReturn

import jax
from absl import flags

_ADDRESS = flags.DEFINE_string(
  "coordinator_address",
  None,
  "Address host:port where the first process of a job of several listens.",
)
_NUMBER = flags.DEFINE_integer(
  "num_processes", None, "How many processes a job has.", lower_bound=1
)
_ID = flags.DEFINE_integer(
  "process_id",
  None,
  "Number of this process in its job, from 0; the first writes the report.",
  lower_bound=0,
)
_AUTOMATIC = flags.DEFINE_boolean(
  "multiprocess",
  False,
  "Start one process of a job whose address and numbers JAX finds by itself.",
)

_HEARTBEAT_SECONDS = 60  # after which a silent process counts as dead
_MEETING_SECONDS = 300
_ending = threading.Lock()


def join(*, quiet: bool) -> None:
  """Makes this process part of the job that the flags describe, if any.

  To be called before anything else of JAX.

  Args:
    quiet: whether to keep what libraries write to standard output, and the
      threads' tracebacks of an abort, from the terminal.

  Raises:
    ValueError: if the flags do not go together.
  """
  options = _options()
  if options is None:
    return
  if quiet:
    _silence_libraries()
    faulthandler.disable()
  # It would swallow SIGTERM and leave it to the program to look.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(
      **options,
      initialization_timeout=_MEETING_SECONDS,
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=3600,  # the others wait for the report
    )
  except ValueError as error:
    raise ValueError(
      "--multiprocess: JAX finds no cluster here; give --coordinator_address, "
      "--num_processes and --process_id instead."
    ) from error
  if jax.process_index():
    _discard(sys.stdout.fileno())


def leave(error: Exception) -> NoReturn:
  """Ends the program with the error in one sentence, without the others.

  They notice; a regular exit would wait for them.
  """
  words = " ".join(str(error).split())
  if isinstance(error, jax.errors.JaxRuntimeError):
    words = _lost(words[:200])
  if not jax.distributed.is_initialized():
    sys.exit(f"error: {words}")
  sys.stderr.flush()
  _end(f"error: {words}\n")


def _end(words: str) -> NoReturn:
  _ending.acquire()  # never released: the thread that comes first speaks
  os.write(sys.stderr.fileno(), words.encode())
  os._exit(1)


def _lost(reason: str) -> str:
  return (
    f"this process cannot go on ({reason}), most likely because another "
    "process of the job ended; the same commands, all started again, continue."
  )


def _options() -> dict[str, object] | None:
  """Arguments of `jax.distributed.initialize`, or None if there is no job."""
  parts = (_ADDRESS, _NUMBER, _ID)
  given = [f"--{flag.name}" for flag in parts if flag.value is not None]
  if _AUTOMATIC.value:
    if given:
      raise ValueError(
        f"--multiprocess finds {given[0]} by itself; give one or the other."
      )
    return {}
  if not given:
    return None
  if len(given) < len(parts):
    raise ValueError(
      f"only {' and '.join(given)} given; a job needs all of "
      f"{', '.join(f'--{flag.name}' for flag in parts)}."
    )
  if not re.fullmatch(r"(\[.+\]|[^:]+):\d+", _ADDRESS.value):
    raise ValueError(
      f"--{_ADDRESS.name}={_ADDRESS.value}; it must be host:port."
    )
  if _ID.value >= _NUMBER.value:
    raise ValueError(
      f"--{_ID.name}={_ID.value}; it must be below "
      f"--{_NUMBER.name}={_NUMBER.value}."
    )
  options = {flag.name: flag.value for flag in parts}
  return {**options, "cluster_detection_method": "deactivate"}


def _discard(descriptor: int) -> None:
  """Sends to nowhere what is written there from now on."""
  with open(os.devnull, "w") as nowhere:
    os.dup2(nowhere.fileno(), descriptor)


def _silence_libraries() -> None:
  """Takes stdout from C++, which greets there; Python keeps it."""
  stream = sys.stdout
  stream.flush()
  own = os.dup(stream.fileno())
  _discard(stream.fileno())
  # Never closed, as Python's own stream.
  options = {"buffering": 1, "encoding": stream.encoding, "closefd": False}
  sys.stdout = open(own, "w", **options)  # noqa: SIM115
