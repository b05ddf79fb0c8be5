"""Complete, verified or refused: damage, crashes and foreign content."""

import errno
import gc
import itertools
import os
import shutil
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import loop
from junlearn.descent import State, descend
from junlearn.objective import weighted
from junlearn.storage import checkpoint
from junlearn.storage.checkpoint import CheckpointError, Progress
from junlearn.transform import Request
from junlearn.tree import digest


def content(offset=0):
  """Nested, of several dtypes, with scalars and names that need care."""
  return {
    "params": {"a": jnp.arange(6.0).reshape(2, 3) + offset, "b/c": jnp.ones(1)},
    "state": (jnp.int32(offset), [jnp.array([True, False])]),
    "half": jnp.full(3, offset, jnp.bfloat16),
    "nothing": None,
  }


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  assert digest(a) == digest(b)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A checkpoint of `content(1)`, to be copied and not changed."""
  path = tmp_path_factory.mktemp("written") / "checkpoint"
  checkpoint.save(path, content(1))
  return path


@pytest.fixture
def path(written, tmp_path):
  return Path(shutil.copytree(written, tmp_path / "checkpoint"))


def test_round_trip_and_replacement(tmp_path):
  path = tmp_path / "new" / "folders" / "checkpoint"
  assert not checkpoint.exists(path)
  with pytest.raises(CheckpointError, match="no complete checkpoint"):
    checkpoint.load(path, content())
  for offset in (1, 2):
    assert checkpoint.save(path, content(offset)) == digest(content(offset))
    assert checkpoint.exists(path)
    loaded = checkpoint.load(str(path), content())
    assert_same(loaded, content(offset))
  assert [p.name for p in path.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_others_cannot_open_it(tmp_path, umask):
  before = os.umask(umask)
  try:
    checkpoint.save(tmp_path / "new" / "folders" / "c", content())
    Progress(tmp_path / "p", seconds=0).save(1, {"w": jnp.ones(1)}, {})
  finally:
    os.umask(before)
  for folder in ("new", "new/folders", "new/folders/c", "p"):
    assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


def test_abstract_values_are_enough_to_load(path):
  like = jax.eval_shape(content)
  assert_same(checkpoint.load(path, like), content(1))


def test_special_numbers_survive(tmp_path):
  special = {"x": jnp.array([np.nan, np.inf, -np.inf, -0.0, 1e-45])}
  checkpoint.save(tmp_path / "c", special)
  assert_same(checkpoint.load(tmp_path / "c", special), special)


def truncate(file):
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(position):
  def damage(file):
    data = bytearray(file.read_bytes())
    if data:
      data[int(position * (len(data) - 1))] ^= 0x55
    file.write_bytes(bytes(data))

  return damage


DAMAGES = {
  "delete": lambda file: file.unlink(),
  "empty": lambda file: file.write_bytes(b""),
  "truncate": truncate,
  "first byte": flip(0),
  "middle byte": flip(0.5),
  "late byte": flip(0.9),
  "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
}


# The reader's threads may answer after the reader has given up.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_refused_or_harmless(path, damage):
  files = [p.relative_to(path) for p in path.rglob("*") if p.is_file()]
  assert len(files) > 5
  refused = set()
  for name in files:
    original = (path / name).read_bytes()
    DAMAGES[damage](path / name)
    try:
      loaded = checkpoint.load(path, content())
    except CheckpointError:
      refused.add(name)
    else:
      assert_same(loaded, content(1))
    (path / name).write_bytes(original)
  assert Path("sha256.json") in refused
  assert len(refused) > 1
  assert_same(checkpoint.load(path, content()), content(1))
  time.sleep(0.1)
  gc.collect()


def test_content_that_does_not_have_the_recorded_hash_is_refused(
  path, tmp_path
):
  checkpoint.save(tmp_path / "other", content(2))
  shutil.rmtree(path / "tree")
  shutil.copytree(tmp_path / "other" / "tree", path / "tree")
  with pytest.raises(CheckpointError, match="recorded hash"):
    checkpoint.load(path, content())


def change(**changes):
  return {**content(), **changes}


@pytest.mark.parametrize(
  ("like", "message"),
  [
    (change(more=jnp.ones(2)), "missing more"),
    ({"half": content()["half"]}, "unexpected params/a"),
    (change(half=jnp.ones(4, jnp.bfloat16)), r"half is bfloat16\[3\], not"),
    (change(half=jnp.ones(3)), r"half is bfloat16\[3\], not float32\[3\]"),
    (
      change(half=jnp.ones(4, jnp.bfloat16), state=None, more=jnp.ones(2)),
      r"half is .*missing more.*unexpected state/0, unexpected state/1/0",
    ),
  ],
)
def test_what_belongs_to_something_else_is_listed(path, like, message):
  with pytest.raises(CheckpointError, match=message):
    checkpoint.load(path, like)


@pytest.mark.parametrize("fails", ["_write", "write_text"])
def test_a_failed_save_leaves_the_checkpoint_before(path, fails, monkeypatch):
  save = checkpoint._write

  def full(*arguments, **kwargs):
    if fails == "_write":
      save(*arguments, **kwargs)  # fails after having written
    raise OSError(errno.ENOSPC, "No space left on device")

  owner = checkpoint if fails == "_write" else Path
  with monkeypatch.context() as patch:
    patch.setattr(owner, fails, full)
    with pytest.raises(OSError, match=r"could not be written: .*No space"):
      checkpoint.save(path, content(2))
  assert_same(checkpoint.load(path, content()), content(1))
  assert [p.name for p in path.parent.iterdir()] == ["checkpoint"]
  checkpoint.save(path, content(3))
  assert_same(checkpoint.load(path, content()), content(3))


class Crash(BaseException):
  """The process dies here."""


def save_and_crash(path, new, at, monkeypatch):
  """Dies at file operation `at` of a save; False if it has not that many.

  A removal dies when it has emptied the folder halfway.
  """
  count = itertools.count()

  def dying(owner, name, halfway=None):
    original = getattr(owner, name)

    def operation(*arguments, **kwargs):
      if next(count) == at:
        if halfway is not None:
          halfway(arguments[0])
        raise Crash
      return original(*arguments, **kwargs)

    return operation

  def half_saved(folder):
    Path(folder).mkdir(parents=True)

  def half_removed(folder):
    for child in sorted(Path(folder).glob("*.json")):
      child.unlink()

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "_write", dying(checkpoint, "_write", half_saved))
    patch.setattr(Path, "write_text", dying(Path, "write_text"))
    patch.setattr(Path, "rename", dying(Path, "rename"))
    # Only our own removals; orbax has some too.
    removals = types.SimpleNamespace(
      rmtree=dying(shutil, "rmtree", half_removed)
    )
    patch.setattr(checkpoint, "shutil", removals)
    try:
      checkpoint.save(path, new)
    except Crash:
      return True
  return False


def test_a_crash_anywhere_leaves_the_old_or_the_new(
  written, tmp_path, monkeypatch
):
  old = digest(content(1))
  outcomes = []
  for at in itertools.count():
    path = tmp_path / str(at) / "checkpoint"
    shutil.copytree(written, path)
    crashed = save_and_crash(path, content(2), at, monkeypatch)
    assert checkpoint.exists(path)
    found = digest(checkpoint.load(path, content()))
    outcomes.append("old" if found == old else "new")
    assert found in (old, digest(content(2)))
    checkpoint.save(path, content(3))  # the next save mends everything
    assert_same(checkpoint.load(path, content()), content(3))
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint"]
    if not crashed:
      break
  assert at >= 5
  assert outcomes == sorted(outcomes, reverse=True)  # all old, then all new
  assert set(outcomes) == {"old", "new"}


def test_a_second_crash_still_leaves_a_checkpoint(
  written, tmp_path, monkeypatch
):
  for at in itertools.count():
    # The first crash was between the renames: only `.old` is there.
    path = tmp_path / str(at) / "checkpoint"
    shutil.copytree(written, path.with_name("checkpoint.old"))
    assert checkpoint.exists(path)
    crashed = save_and_crash(path, content(2), at, monkeypatch)
    assert checkpoint.exists(path)
    assert digest(checkpoint.load(path, content())) in (
      digest(content(1)),
      digest(content(2)),
    )
    if not crashed:
      break
  assert at >= 4


def test_progress_begins_afresh_then_restores(tmp_path):
  note = np.zeros(2, np.float32)
  progress = Progress(tmp_path / "p", seconds=0, notes={"note": note})
  carry, infos = {"w": jnp.zeros(3)}, {"loss": np.zeros(4, np.float32)}
  step, same_carry, same_infos = progress.restore(carry, infos)
  assert step == 0
  assert same_carry is carry
  assert same_infos is infos

  note[:] = [5, 6]
  progress.save(2, {"w": jnp.ones(3)}, {"loss": np.float32([1, 2, 0, 0])})
  note[:] = 0
  step, kept, kept_infos = progress.restore(carry, infos)
  assert step == 2
  np.testing.assert_array_equal(kept["w"], np.ones(3))
  np.testing.assert_array_equal(note, [5, 6])  # in place
  kept_infos["loss"][2] = 3.0  # the loop goes on writing to it
  np.testing.assert_array_equal(kept_infos["loss"], [1, 2, 3, 0])


def test_progress_saves_no_more_often_than_asked(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
  progress = Progress(tmp_path / "p", seconds=10)
  saved = []
  monkeypatch.setattr(
    checkpoint, "save", lambda path, content: saved.append(content["step"])
  )
  for step, clock in enumerate([105, 109.9, 110, 119, 121, 130, 131]):
    now[0] = clock
    progress.save(step, {}, {})
  assert saved == [2, 4, 6]


@pytest.mark.parametrize("suffix", ["", ".old"])
def test_cleared_progress_is_forgotten(tmp_path, suffix):
  progress = Progress(tmp_path / "p", seconds=0)
  progress.save(1, {"w": jnp.ones(1)}, {})
  if suffix:  # as a crash between the renames leaves it
    (tmp_path / "p").rename(tmp_path / f"p{suffix}")
  progress.clear()
  assert not checkpoint.exists(tmp_path / "p")
  assert progress.restore("carry", "infos") == (0, "carry", "infos")


def test_progress_of_another_run_is_refused(tmp_path):
  Progress(tmp_path / "p", seconds=0).save(1, {"w": jnp.ones(2)}, {})
  with pytest.raises(CheckpointError, match=r"carry/w is float32\[2\]"):
    Progress(tmp_path / "p").restore({"w": jnp.ones(3)}, {})


def test_notes_keep_double_precision(tmp_path):
  note = np.array([1 / 3, np.nan])
  progress = Progress(tmp_path / "p", seconds=0, notes={"note": note})
  progress.save(1, {"w": jnp.ones(1)}, {})
  note[:] = 0
  progress.restore({"w": jnp.ones(1)}, {})
  np.testing.assert_array_equal(note, [1 / 3, np.nan])


def test_a_killed_descent_continues_from_disk_bit_for_bit(tmp_path):
  def squared(params, examples, key=None):
    noise = jax.random.normal(key, examples.shape)
    return jnp.sum(jnp.square(examples + noise - params), axis=-1), params

  def transform(each):
    return descend(
      weighted(squared, retain=1.0),
      optax.sgd(0.1, momentum=0.9),
      num_steps=9,
      batch_size=2,
      loop=each,
    )

  key, request = jax.random.key(0), Request(None, jnp.eye(5, 3))
  whole = transform(loop.host(every=2))(key, jnp.zeros(3), request)

  def kill(done, *_):
    if done == 6:
      raise KeyboardInterrupt

  def progress():
    return Progress(tmp_path / "p", seconds=0)

  with pytest.raises(KeyboardInterrupt):
    transform(loop.host(every=2, watch=kill, checkpoint=progress()))(
      key, jnp.zeros(3), request
    )
  assert progress().restore(*_blank(whole))[0] == 4
  looks = []
  continued = transform(
    loop.host(
      every=2,
      watch=lambda done, *_: looks.append(done),
      checkpoint=progress(),
    )
  )(key, jnp.zeros(3), request)
  assert looks == [6, 8, 9]
  assert_same(continued, whole)


def _blank(result):
  """A carry and infos with the shapes of the descent's."""
  optimizer = optax.sgd(0.1, momentum=0.9).init(result.params)
  infos = jax.tree.map(np.zeros_like, result.info["steps"])
  return State(result.params, optimizer), infos
