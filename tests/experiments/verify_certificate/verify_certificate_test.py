"""The verifier, on a small real run and all that can be done to it."""

import json
import math
import os
import shutil
import subprocess
import sys

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.bench.forgeries.folder import read_json, write_json
from experiments.bench.forgeries.rewrite import rewrite
from experiments.release import register
from experiments.verify_certificate import __main__ as verify_certificate
from experiments.verify_certificate import checks
from junlearn.certify import ledger, signing
from tests.experiments.driver import ROOT
from tests.experiments.verify_certificate import toy_forgeries, toy_release

CERTIFICATE = toy_forgeries.CERTIFICATE
PARAMS = f"{toy_forgeries.SECOND}/params.safetensors"
FILES = (
  "config.json",
  CERTIFICATE,
  PARAMS,
  register.LEDGER,
  register.PUBLIC_KEY,
  register.SALT,
  register.SIGNING_KEY,
)


@pytest.fixture(autouse=True)
def toy(x64, monkeypatch):
  """The small experiment, and flags that are put back."""
  monkeypatch.setitem(
    checks.EXPERIMENTS, toy_release.EXPERIMENT, toy_release.__name__
  )
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver():
    yield


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
  """A finished run; tests leave it as it is."""
  folder = tmp_path_factory.mktemp("toy") / "run"
  flags.FLAGS.mark_as_parsed()
  with jax.enable_x64(True), flagsaver.flagsaver(**toy_release.FLAGS):
    toy_release.make(folder)
  return folder


@pytest.fixture
def run(honest, tmp_path):
  return shutil.copytree(honest, tmp_path / "run")


def problems(folder, **options):
  return list(checks.problems(folder, **options))


def own_key(folder):
  return signing.load_key((folder / register.SIGNING_KEY).read_bytes())


def test_an_honest_run_agrees(run):
  assert problems(run) == []
  last = ledger.read(run / register.LEDGER)[-1]
  assert problems(run, head=last.hash, public_key=last.signer) == []


def test_rewriting_an_honest_run_changes_nothing(run, honest):
  """So that what is found below is the forgery, not how it was written."""
  rewrite(run, own_key(run))
  for path in run.rglob("*.json*"):
    assert path.read_bytes() == (honest / path.relative_to(run)).read_bytes()


@pytest.mark.parametrize("name", toy_forgeries.FORGERIES)
def test_a_forgery_is_found(run, name):
  forge, words = toy_forgeries.FORGERIES[name]
  key = own_key(run)
  forge(run)
  rewrite(run, None)
  assert problems(run)
  rewrite(run, key)
  found = problems(run)
  assert any(words in problem for problem in found), found


@pytest.mark.parametrize("name", FILES[:5])
def test_an_edited_byte_is_found(run, name):
  path = run / name
  content = path.read_bytes()
  for position in range(0, len(content), max(len(content) // 20, 1)):
    edited = bytes([content[position] ^ 1])
    path.write_bytes(content[:position] + edited + content[position + 1 :])
    found = problems(run)
    assert any(path.name in p or "params_after" in p for p in found), position


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"\xff\xfe\x00\n",
    b"[" * 10_000_000,
    b"null\n",
    b"[]\n",
    b"{}\n",
    b'{"flags": {"epsilon": NaN}, "experiment": "toy"}\n',
    b'"\\ud800"\n',
    None,
  ],
  ids=["empty", "bytes", "deep", "null", "list", "dict", "nan", "half", "gone"],
)
def test_anything_in_a_file_is_a_sentence(run, name, content):
  path = run / name
  path.unlink()
  if content is not None:
    path.write_bytes(content)
  found = problems(run)
  # Without its own key a folder is complete: it need not be kept there.
  missing = content is None and name == register.SIGNING_KEY
  assert bool(found) is not missing


@pytest.mark.parametrize("name", FILES)
def test_a_folder_for_a_file_is_a_sentence(run, name):
  (run / name).unlink()
  (run / name).mkdir()
  assert problems(run)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    *(("epsilon", v) for v in ("1", [1.0], True, {"a": {}}, None, math.nan)),
    *(("epsilon", v) for v in (10**400, 10**4000, math.inf, -1.0, 0.0)),
    *(("planned_releases", v) for v in ("2", [2], True, 0, 2.0, 10**400)),
    *(("max_distance", v) for v in (1e300, -0.0, False)),
    *(("fallback", v) for v in (0, "all", ["none"])),
    *(("seeds", v) for v in (10**9, "x", {})),
  ],
)
def test_a_flag_of_another_kind_is_a_sentence(run, name, value):
  key = own_key(run)
  toy_forgeries.flag(name, value)(run)
  rewrite(run, key)
  assert problems(run)


@pytest.mark.parametrize("content", [[], "x", None, 5, {"a": 1}])
def test_no_flags_are_a_sentence(run, content):
  config = read_json(run / "config.json")
  write_json(run / "config.json", config | {"flags": content})
  assert problems(run)


@pytest.mark.parametrize("experiment", ["other", None, [], {}, 3])
def test_an_unknown_experiment(run, experiment):
  config = read_json(run / "config.json")
  write_json(run / "config.json", config | {"experiment": experiment})
  assert problems(run)


def test_another_key_or_head_than_was_kept(run):
  last = ledger.read(run / register.LEDGER)[-1]
  assert "is not the head 0000" in problems(run, head="0" * 64)[0]
  first = ledger.read(run / register.LEDGER)[0]
  assert problems(run, head=first.hash)
  found = problems(run, public_key="0" * 64)
  assert any(p.startswith(f"{register.LEDGER}: independently") for p in found)
  # Whoever signs all anew is found by what was kept elsewhere, and by no more.
  pem = signing.new_key()
  other = signing.load_key(pem)
  (run / register.SIGNING_KEY).write_bytes(pem)
  (run / register.PUBLIC_KEY).write_text(f"{signing.public_key(other)}\n")
  rewrite(run, other)
  assert problems(run) == []
  assert "the signer must be" in problems(run, public_key=last.signer)[0]
  assert "is not the head" in problems(run, head=last.hash)[0]


def _link(run):
  (run / "releases/more").symlink_to(run / "private")


def _pipe(run):
  (run / register.SALT).unlink()
  os.mkfifo(run / register.SALT)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (_link, "releases/more: is no file and no folder"),
    (_pipe, f"{register.SALT}: is no file and no folder"),
    (lambda run: (run / "releases/more").mkdir(), "releases/more: is no part"),
  ],
)
def test_what_is_neither_file_nor_release(run, change, words):
  change(run)
  assert any(each.startswith(words) for each in problems(run))


def test_the_program_says_one_line(run, capsys):
  last = ledger.read(run / register.LEDGER)[-1]
  verify_certificate.main([str(run)])
  (told,) = capsys.readouterr().out.splitlines()
  assert told.startswith(f"{run}: all agrees on 2 releases at epsilon 1 and ")
  assert f"{last.hash}, signed by {last.signer}. Reports" in told
  with flagsaver.flagsaver(head=last.hash, public_key=last.signer):
    verify_certificate.main([str(run)])
  assert "all agrees" in capsys.readouterr().out
  with flagsaver.flagsaver(head="0" * 64), pytest.raises(SystemExit) as ended:
    verify_certificate.main([str(run)])
  assert ended.value.code == 1
  assert capsys.readouterr().out.startswith(f"{register.LEDGER}: line 2 is not")
  with pytest.raises(ValueError, match="0 folders were given"):
    verify_certificate.main([])


def test_what_the_folder_says_stays_within_its_line(run, capsys):
  (run / "releases/a\nall agrees\x1b[2J\udcff").write_text("")
  content = read_json(run / CERTIFICATE)
  content["checked"] |= {"b\nall agrees": "c" * 10_000}
  (run / CERTIFICATE).write_text(json.dumps(content, indent=2) + "\n")
  with pytest.raises(SystemExit):
    verify_certificate.main([str(run)])
  printed = capsys.readouterr().out.splitlines()
  assert not any(line.startswith("all agrees") for line in printed)
  assert max(map(len, printed)) < 1100
  assert all(line.isprintable() for line in printed)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("config", "words"),
  [
    (None, "holds no config.json"),
    (b"\xff", "is not the config.json of a run"),
    (b"[]", "is not the config.json of a run"),
    (b"[" * 10_000_000, "cannot be verified (RecursionError"),
    (
      b'{"experiment": "decentralized", "flags": {"seeds": 1000000000000}}',
      "at most 10000 releases are verified",
    ),
    (
      b'{"experiment": "decentralized", "flags": {"clients": "8"}}',
      "--clients is '8'; it must be of the type of 8.",
    ),
  ],
)
def test_the_command_ends_with_a_sentence(tmp_path, config, words):
  if config is not None:
    (tmp_path / "config.json").write_bytes(config)
  ended = subprocess.run(
    [sys.executable, "-m", "experiments.verify_certificate", str(tmp_path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 1
  assert words in ended.stdout
  assert len(ended.stdout.splitlines()) == 1
  assert "Traceback" not in ended.stdout + ended.stderr
