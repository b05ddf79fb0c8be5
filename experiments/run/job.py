r"""One process of several that run the same program, as on a pod.

    python -m experiments.classification --coordinator_address=10.0.0.1:1234 \
      --num_processes=2 --process_id=0  # on the first machine, 1 on the second

or, where JAX finds the three values itself (TPU pods, Slurm, Open MPI,
Kubernetes), the same command with `--multiprocess` on all machines.

The first process writes the folder of the run and speaks; the others need none
of its disk. Each reads the data set from its own `--data_dir`. When a process
ends early, so do the others; all started again, they continue.
"""

import ctypes
import os
import re
import signal
import sys
import threading
from typing import NoReturn

import jax
from absl import flags

_ADDRESS = flags.DEFINE_string(
  "coordinator_address",
  None,
  "Of a job of several processes: host:port where the first one listens.",
)
_NUMBER = flags.DEFINE_integer(
  "num_processes", None, "Of a job: how many processes.", lower_bound=1
)
_ID = flags.DEFINE_integer(
  "process_id",
  None,
  "Of a job: which of them this is, from 0; the first writes and speaks.",
  lower_bound=0,
)
_AUTOMATIC = flags.DEFINE_boolean(
  "multiprocess",
  False,
  "One process of a job whose other flags JAX finds by itself.",
)

_HEARTBEAT_SECONDS = 60  # after which a silent process counts as dead
_MEETING_SECONDS = 300
# What JAX aborts with while it does what stands here in words.
_abort_words = ""
_ending = threading.Lock()


def join(*, quiet: bool) -> None:
  """Makes this process part of the job that the flags describe, if any.

  To be called before anything else of JAX.

  Args:
    quiet: whether to say in one sentence that another process ended, in place
      of what JAX and its libraries write on the terminal.

  Raises:
    ValueError: if the flags do not go together.
  """
  options = _options()
  if options is None:
    return
  if quiet:
    _silence_libraries()
    _speak_on_abort()
  # It would swallow SIGTERM and leave it to the program to look.
  jax.config.update("jax_enable_preemption_service", False)
  global _abort_words
  _abort_words = (
    "error: the processes of the job did not all meet at "
    f"{_ADDRESS.value or 'its first process'} within {_MEETING_SECONDS} "
    "seconds; check the address and that all were started.\n"
  )
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
  _abort_words = f"error: {_lost('JAX aborted it')}\n"
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
  """Takes the terminal from C++, which greets on stdout; Python keeps it."""
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    stream.flush()
    own = os.dup(stream.fileno())
    _discard(stream.fileno())
    # Never closed, as Python's own streams.
    options = {"buffering": 1, "encoding": stream.encoding, "closefd": False}
    setattr(sys, name, open(own, "w", **options))  # noqa: SIM115


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_: int) -> None:
  _end(_abort_words)


def _speak_on_abort() -> None:
  """Installs `_on_abort`.

  JAX aborts from a thread of its own when it loses the job. Python runs its
  signal handlers too late for that; libc runs this one at once.
  """
  ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)
