"""Two real processes on loopback, and one alone."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from junlearn.parallel import processes

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
from junlearn.parallel import processes

jax.distributed.initialize(
  sys.argv[1], 2, int(sys.argv[2]), cluster_detection_method="deactivate"
)
me = jax.process_index()
assert processes.is_first() == (me == 0)

members = processes.local_shard(6)
assert members.tolist() == [[0, 1, 2], [3, 4, 5]][me]
try:
  processes.local_shard(5)
  raise AssertionError
except ValueError as error:
  assert "5 members do not divide evenly over 2 processes" in str(error)

def same(got, expected):
  assert type(got) is type(expected), (type(got), type(expected))
  assert got.dtype == expected.dtype and got.shape == expected.shape
  assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()

# Every bit arrives: signs of zeros, NaN, double precision without x64.
whole = {
  "double": np.linspace(0, 1, 12).reshape(6, 2) + 1e-12,
  "half": jnp.array([-0.0, np.nan, 1, np.inf, 5e-8, 0], jnp.bfloat16),
  "flag": np.array([True, False, True, False, False, True]),
  "empty": np.zeros((6, 0), np.float32),
  "byte": jnp.arange(6, dtype=jnp.int8) - 3,
}
block = jax.tree.map(lambda leaf: leaf[members], whole)
jax.tree.map(same, processes.gather(block), whole)
table = np.arange(24.0).reshape(2, 6, 2)
same(processes.gather(table[:, members], axis=1), table)
same(processes.gather(table[:, 0, 0], axis=1), table[:, 0, 0])

other = jax.tree.map(lambda leaf: leaf[::-1], whole)
mine = whole if me == 0 else other
jax.tree.map(same, processes.broadcast(mine), whole)
assert processes.broadcast(np.bool_(me == 0))

for content in (None, b"", b"abc", bytes(range(256))):
  assert processes.broadcast_bytes(content if me == 0 else b"other") == content
print("all", me)
"""


def test_two_processes_see_the_same():
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
  children = [
    subprocess.Popen(
      [sys.executable, "-c", PROGRAM, address, str(number)],
      cwd=ROOT,
      env={**os.environ, "JAX_NUM_CPU_DEVICES": "2"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  ends = [(*child.communicate(timeout=300), child.wait()) for child in children]
  for number, (out, err, code) in enumerate(ends):
    assert code == 0, err
    assert out.endswith(f"all {number}\n")


def test_one_process_has_everything():
  value = {"x": jax.numpy.ones(3), "y": np.arange(2)}
  assert processes.is_first()
  assert processes.local_shard(3).tolist() == [0, 1, 2]
  assert processes.gather(value) is value
  assert processes.broadcast(value) is value
  assert processes.broadcast_bytes(b"x") == b"x"
  assert processes.broadcast_bytes(None) is None


@pytest.mark.parametrize(("index", "rows"), [(0, [0, 1]), (2, [4, 5])])
def test_blocks_are_in_order(monkeypatch, index, rows):
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  monkeypatch.setattr(jax, "process_index", lambda: index)
  assert processes.local_shard(6).tolist() == rows
