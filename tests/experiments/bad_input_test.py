"""Bad input ends in one sentence that helps, and touches nothing."""

import contextlib
import fcntl
import re
import shutil
import subprocess

import numpy as np
import pytest
from absl import flags

from experiments.classification import __main__ as classification
from experiments.run.session import Session
from experiments.run.workdir import Workdir
from junlearn.loop import NonFiniteError
from junlearn.transform import Result
from tests.experiments.driver import ROOT, hashes, leftovers, read_rows, toy_run


@pytest.mark.slow
@pytest.mark.parametrize(
  ("given", "words"),
  [
    ("--method=amum", r"--method: 'amum' is unknown; did you mean 'amun'\?"),
    ("--method=amun,amun", "--method: 'amun' occurs twice"),
    ("--dataset=digit", "--dataset=digit: .*'digits'.* prepare it there"),
    ("--model=resnet19", r"--model=resnet19: .*cnn\|mlp\|resnet18"),
    ("--forget_ids=1,7777", "--forget_ids=1,7777: .*7777, which no example"),
    ("--forget_ids=5,5", "--forget_ids=5,5: .*5 more than once"),
    ("--forget_ids=5,b", "--forget_ids=5,b; it must be whole numbers"),
    ("--forget_ids=", "--forget_ids=: .*selects nothing"),
    ("--forget_fraction=0", r"--forget_fraction=0\.0: .*in \(0, 1\)"),
    ("--forget_fraction=1", r"--forget_fraction=1\.0: .*in \(0, 1\)"),
    ("--forget_fraction=-1", r"--forget_fraction=-1\.0: .*in \(0, 1\)"),
    ("--forget_fraction=1e-9", "--forget_fraction=1e-09: .*rounds to 0 of 200"),
    ("--forget_fraction=nan", r"--forget_fraction=nan: .*in \(0, 1\)"),
    (
      "--forget_fraction=0.1 --forget_class=1",
      r"forget_fraction=0\.1, forget_class=1.*[Aa]t most one",
    ),
    ("--forget_class=11", "--forget_class=11: .*no example has; .*0, 1, 2"),
    ("--references=7", "--references=7; it must be even"),
    ("--nouse_retain", "--nouse_retain: finetune cannot work without"),
    (
      "--unlearn_learning_rates=amum=1",
      "--unlearn_learning_rates: 'amum' is unknown; did you mean 'amun'",
    ),
    (
      "--unlearn_learning_rates=amun=1,amun=2",
      "--unlearn_learning_rates: 'amun' occurs twice",
    ),
    *(
      (
        f"--unlearn_learning_rates=amun={value}",
        f"--unlearn_learning_rates: amun has '{value}'; it must be a finite",
      )
      for value in ("nan", "-1", "inf", "", "x")
    ),
    ("--learning_rate=-1", "--learning_rate=-1.*non-negative"),
    ("--batch_size=0", "--batch_size=0.*positive"),
    ("--seeds=x", "--seeds=x.*int"),
    ("--epochs=0", "--epochs=0.*positive"),
    ("--num_train=5000", "--dataset=digits: num_train is 5000; .*between 1"),
    ("extra", "unexpected argument 'extra'"),
  ],
)
def test_flags(driver, finished, tmp_path, given, words):
  del finished  # prepares the data
  command = driver.command(tmp_path / "run", *given.split())[2:]
  for flag in flags.FLAGS.get_key_flags_for_module(classification):
    flag.unparse()  # from the test before
  with pytest.raises((ValueError, flags.Error), match=words) as caught:
    classification.main(flags.FLAGS(command)[1:])
  assert "\n" not in str(caught.value).strip()
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("given", "words"),
  [
    ("--metod=amun", r"FATAL .*'metod'\. Did you mean: method \?"),
    ("--method=amum", "error: --method: 'amum' is unknown; did you mean"),
    ("--epochs=3", "error: --workdir=.*--epochs was 2 and is 3.*; repeat"),
    ("--dataset=mnist", "error: mnist could not .*manual_dir"),
  ],
)
def test_exit(driver, finished, given, words):
  if given == "--dataset=mnist":
    given += " --manual_dir=" + str(finished / "evidence")
    words = r"error: manual_dir .* lacks train-images-idx3-ubyte\.gz"
  before = hashes(finished)
  code, out, err = driver(finished, *given.split())
  assert (code, out) == (1, "")
  assert re.match(words, err), err
  assert len(err.splitlines()) <= 2  # absl adds where the help is
  assert hashes(finished) == before


@contextlib.contextmanager
def refused(folder, words):
  """The run is refused in these words, and its folder stays as it is."""
  before = hashes(folder)
  with pytest.raises(ValueError, match=words) as caught:
    yield
  assert "\n" not in str(caught.value)
  assert hashes(folder) == before


@pytest.fixture
def folder(tmp_path):
  toy_run(tmp_path / "run")
  return tmp_path / "run"


def test_workdir_that_is_a_file(tmp_path):
  (tmp_path / "file").write_text("mine")
  with refused(tmp_path, "--workdir=.*file is a file; it must be a folder"):
    toy_run(tmp_path / "file")
  with pytest.raises(OSError, match=r"--workdir=.* be written: Not a dir"):
    toy_run(tmp_path / "file/under")


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("notes.txt", "--workdir=.* holds files but no run of ours"),
    ("config.json", r"config\.json is not the config\.json of a run"),
    (".partial", "--workdir=.* holds files but no run of ours"),
  ],
)
def test_workdir_of_another(tmp_path, name, words):
  (tmp_path / name).write_text("[]")
  with refused(tmp_path, words):
    toy_run(tmp_path)


def test_workdir_in_use(folder):
  with (folder / ".lock").open() as lock:
    fcntl.flock(lock, fcntl.LOCK_SH)
    with refused(folder, "in use by another run; wait for it"):
      toy_run(folder)


def test_workdir_of_other_flags(folder):
  with refused(folder, "--steps was 20 and is 30.*repeat its flags"):
    toy_run(folder, steps=30)


@pytest.mark.parametrize("name", ["private", "checkpoints", "evidence"])
def test_private_folder_that_is_a_link(folder, tmp_path, name):
  (tmp_path / "elsewhere").mkdir(mode=0o755)
  shutil.rmtree(folder / name, ignore_errors=True)
  (folder / name).symlink_to(tmp_path / "elsewhere")
  with refused(folder, f"{name} is a link to elsewhere; what is private must"):
    toy_run(folder)
  assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o755
  assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
  "text", ["", "{", "[]", "{}", '{"flags": 3}', "\xff\xfe"]
)
def test_damaged_config(folder, text):
  (folder / "config.json").write_text(text, encoding="latin-1")
  with refused(folder, r"config\.json is not the config\.json of a run"):
    toy_run(folder)


@pytest.mark.parametrize(
  "text", ['{"method": "to', "\n", "3", "{}", "\xff", '{"method":1,"seed":[]}']
)
def test_damaged_rows(folder, text):
  (folder / "results.jsonl").write_text(text, encoding="latin-1")
  with refused(folder, r"results\.jsonl is damaged .*; restore it or choose"):
    toy_run(folder)


def test_damaged_evidence(folder):
  path = folder / "evidence/toy.npz"
  path.write_bytes(path.read_bytes()[:-30])
  with (
    Workdir(folder, {"steps": 20}) as workdir,
    refused(folder, r"toy\.npz is damaged .*; delete it"),
  ):
    workdir.read_arrays("evidence/toy.npz")


@pytest.mark.parametrize("text", [None, "", "{}", '{"seconds": 1}', "[1]"])
def test_damaged_record(folder, text):
  record = folder / "checkpoints/seed0/toy.json"
  record.unlink()
  if text is not None:
    record.write_text(text)
  with refused(
    folder, r"toy\.json is missing or damaged .*; delete .*toy to run"
  ):
    toy_run(folder)


def test_truncated_checkpoint(folder):
  for path in (folder / "checkpoints/seed0/toy/tree").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with refused(folder, "checkpoint .*toy is damaged .*; delete it"):
    toy_run(folder)


def test_emptied_checkpoint(folder):
  shutil.rmtree(folder / "checkpoints/seed0/toy/tree")
  with refused(folder, "toy is damaged"):
    toy_run(folder)
  (folder / "checkpoints/seed0/toy/sha256.json").unlink()
  with refused(folder, "toy holds no complete checkpoint"):
    toy_run(folder)


def test_foreign_checkpoint(folder, tmp_path):
  toy_run(tmp_path / "other", steps=30)
  place = "checkpoints/seed0/toy"
  shutil.rmtree(folder / place)
  shutil.copytree(tmp_path / "other" / place, folder / place)
  with refused(folder, r"toy is not the checkpoint that .*toy\.json describes"):
    toy_run(folder)
  # What the sentence advises helps.
  shutil.rmtree(folder / place)
  assert toy_run(folder).params_sha256


def test_params_that_are_not_finite(tmp_path):
  params = {"w": np.array([1, np.inf])}
  with (
    Workdir(tmp_path, {}) as workdir,
    Session(workdir, 1) as session,
    pytest.raises(NonFiniteError, match="x: params are not finite"),
  ):
    session.phase("x", lambda: Result(params, None, {}), start=params, steps=1)
  assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_loss_that_is_not_finite(driver, finished, tmp_path):
  """Stops at its step; what was kept, and rows of what was done, stay."""
  folder = tmp_path / "run"
  given = ("--unlearn_learning_rates=amun=1e30", "--checkpoint_seconds=0")
  code, _, err = driver(folder, *given, "--unlearn_epochs=4")
  assert code == 1
  assert err.startswith("error: seed0/amun: ")
  assert "is not finite at step 2; a smaller learning rate" in err
  assert err.count("\n") == 1
  assert [row["method"] for row in read_rows(folder)] == [
    row["method"] for row in read_rows(finished)[:-1]
  ]
  before = hashes(folder)
  assert driver(folder, *given, "--unlearn_epochs=4")[2] == err
  assert hashes(folder) == before
  assert not leftovers(folder)


@pytest.mark.slow
def test_full_disk(driver, finished, tmp_path):
  """A limit on file sizes stands for the disk; room again, and it goes on."""
  folder = tmp_path / "run"
  limited = ["prlimit", "--fsize=20000:", *driver.command(folder)]
  done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
  code, err = done.returncode, done.stderr
  assert code == 1
  assert err.splitlines()[-1].startswith(f"error: checkpoint {folder}/")
  assert "could not be written" in err
  assert "Traceback" not in err
  assert not leftovers(folder)
  code, _, err = driver(folder)
  assert code == 0, err
  assert [row["params_sha256"] for row in read_rows(folder)] == [
    row["params_sha256"] for row in read_rows(finished)
  ]


def test_full_disk_leaves_the_file_before(folder, monkeypatch):
  def full(_):
    raise OSError(28, "No space left on device")

  before = hashes(folder)
  monkeypatch.setattr("os.fsync", full)
  with (
    Workdir(folder, {"steps": 20}) as workdir,
    pytest.raises(OSError, match=r"results.jsonl cannot be written: No sp"),
  ):
    workdir.add_row({"method": "new"})
  assert hashes(folder) == before
  assert len(workdir.rows) == 1
