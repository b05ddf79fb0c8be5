"""Runs of the experiment driver, started as a user starts them."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.run.session import Session
from experiments.run.workdir import Workdir
from junlearn.descent import State
from junlearn.transform import Result

ROOT = Path(__file__).parents[2]
SMALL = (
  "--model=mlp",
  "--epochs=2",
  "--unlearn_epochs=1",
  "--seeds=1",
  "--references=2",
  "--num_train=200",
  "--num_test=100",
  "--method=finetune,amun",
)


class Driver:
  """Starts an experiment with its small flags."""

  def __init__(self, folder, module="experiments.classification", flags=SMALL):
    self._module, self._flags = module, flags
    self._started = []
    self._places = [
      f"--data_dir={folder / 'data'}",
      f"--cache_dir={folder / 'compiled'}",
    ]

  def command(self, workdir, *flags):
    module = [sys.executable, "-m", self._module]
    small = [f"--workdir={workdir}", *self._places, *self._flags]
    return [*module, *small, *flags]

  def start(self, workdir, *flags, env=None, **options):
    process = subprocess.Popen(
      self.command(workdir, *flags),
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, "PYTHONWARNINGS": "default", **(env or {})},
      **options,
    )
    self._started.append(process)
    return process

  def close(self):
    """Ends what a failed test has left."""
    for process in self._started:
      if process.poll() is None:
        process.kill()
        process.communicate()

  def start_job(self, workdir, *flags, second=()):
    """Two processes on loopback, each with two devices.

    The second one gets more flags if need be.
    """
    address = f"--coordinator_address=127.0.0.1:{_free_port()}"
    common = (workdir, address, "--num_processes=2", *flags)
    env = {"JAX_NUM_CPU_DEVICES": "2"}
    return [
      self.start(*common, "--process_id=0", env=env),
      self.start(*common, "--process_id=1", *second, env=env),
    ]

  def __call__(self, workdir, *flags, **options):
    """Exit code, stdout and stderr."""
    with self.start(workdir, *flags, **options) as process:
      out, err = process.communicate(timeout=500)
    return process.returncode, out, err


def _free_port():
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


class Killed(BaseException):
  """Stands for the end of the process: nothing of ours catches it."""


def toy_run(folder, *, steps=20):
  """A run of one phase, with its evidence and row; gives the outcome."""
  with Workdir(folder, {"steps": steps}) as workdir:
    with Session(workdir, steps, checkpoint_seconds=0) as session:
      outcome = session.phase(
        "seed0/toy",
        lambda: _toy(session.loop, steps),
        start={"w": np.zeros(3, np.float32)},
        steps=steps,
        evaluate=lambda params: (float(params["w"][0]),),
        note=lambda info: {"last": float(info["loss"][-1])},
      )
    if workdir.row("toy", 0) is None:
      workdir.write_arrays("evidence/toy.npz", {"x": np.arange(3)})
      workdir.add_row({"method": "toy", "seed": 0, "metrics": {"a": 1.5}})
  return outcome


def _toy_step(state, x, data):
  del data
  params = {"w": 0.9 * state.params["w"] + x}
  return State(params, state.optimizer + 1), {"loss": params["w"].sum()}


def _toy(loop, steps):
  state = State({"w": jnp.zeros(3)}, jnp.int32(0))
  xs = jnp.sin(jnp.arange(steps * 3.0)).reshape(steps, 3)
  state, infos = loop(_toy_step, state, xs, None)
  assert state.optimizer == steps
  return Result(state.params, None, infos)


def read_rows(workdir):
  lines = (workdir / "results.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def hashes(workdir):
  return {
    path.relative_to(workdir).as_posix(): hashlib.sha256(
      path.read_bytes()
    ).hexdigest()
    for path in sorted(workdir.rglob("*"))
    if path.is_file()
  }


def leftovers(workdir):
  """What a finished run must not leave behind."""
  words = ("partial", "underway", ".old", "tmp")
  return [
    path for path in workdir.rglob("*") if any(w in path.name for w in words)
  ]
