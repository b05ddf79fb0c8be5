"""Certified deletion from one linear classifier."""

import contextlib
import json
import re
import shutil
import stat
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags

from experiments.classification import __main__ as classification
from experiments.classification import certified as image_certified
from experiments.classification import features
from experiments.classification.tasks import Asked
from experiments.release.terms import Terms
from experiments.run import options, runner
from junlearn.certify import NotReachedError
from junlearn.certify.accountant import BudgetError
from junlearn.storage import checkpoint
from tests import softmax
from tests.experiments.driver import ROOT, Driver, hashes, read_rows
from tests.experiments.toy_images import toy

L2 = 0.05
TERMS = Terms(requests=2, planned_releases=2)
RELEASE = "releases/seed0/newton"


@pytest.fixture
def dataset():
  return toy()


def study_of(dataset, terms=TERMS):
  inputs, _ = features.of_pixels(dataset)
  asked = Asked(forget_ids=(3, 14, 15))
  return image_certified.Study(
    inputs, "Pixels.", asked=asked, l2=L2, terms=terms
  )


def run(folder, study):
  flags.FLAGS.mark_as_parsed()
  asked = options.Run(folder, (image_certified.METHOD,), 1)
  runner.run(study, asked, options={"l2": L2}, private=True)


def requests_of(study):
  (task,) = study.tasks(0)
  return task.requests


def kept(folder, phase, study):
  """The params of a phase as one vector, the bias last."""
  params = checkpoint.load(folder / "checkpoints" / phase, study.start())
  dense = params["params"]["Dense_0"]
  return np.concatenate([dense["kernel"], dense["bias"][None]]).ravel()


def optimum(retain):
  """By another implementation, on dense matrices."""
  x = np.concatenate([retain["input"], np.ones((len(retain["input"]), 1))], 1)
  weight = np.ones(len(x))
  return softmax.minimum(
    lambda w: softmax.gradient(w, x, retain["label"], weight, L2),
    lambda w: softmax.hessian(w, x, weight, L2),
    np.zeros(3 * x.shape[1]),
  )


def certificate(folder, index=0):
  path = folder / RELEASE / str(index) / "certificate.json"
  return json.loads(path.read_text())


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
  """Folder and study of a finished run; tests leave them as they are."""
  folder, study = tmp_path_factory.mktemp("answered"), study_of(toy())
  with jax.enable_x64(True):
    run(folder, study)
  return folder, study


def test_every_phase_is_as_near_its_optimum_as_it_says(answered, x64):
  folder, study = answered
  first, last = requests_of(study)
  assert first.forget["id"].tolist() == [3, 14]
  assert last.forget["id"].tolist() == [3, 14, 15]
  for phase, retain in (
    ("original", study.dataset.train),
    ("retrain", last.retain),
  ):
    error = np.linalg.norm(
      kept(folder, f"seed0/{phase}", study) - optimum(retain)
    )
    assert error <= image_certified.RETRAIN_ERROR
  for index, request in enumerate(requests_of(study)):
    corrected = kept(folder, f"seed0/newton/{index}-corrected", study)
    error = np.linalg.norm(corrected - optimum(request.retain))
    issued = certificate(folder, index)
    assert error <= issued["measured"]["result"] <= TERMS.max_distance
    assert not issued["fallback"]
    # 30 numbers: the ratio is beyond these bounds with probability 1e-6.
    released = kept(folder, f"seed0/newton/{index}-released", study)
    noise = np.linalg.norm(released - corrected) / issued["sigma"]
    assert 0.4 < noise / np.sqrt(len(released)) < 1.7


def test_rows(answered, x64):
  folder, study = answered
  rows = {row["method"]: row for row in read_rows(folder)}
  assert list(rows) == ["retrain", "original", "newton"]
  found = rows["newton"]["metrics"]
  last = optimum(requests_of(study)[1].retain)
  corrected = kept(folder, "seed0/newton/1-corrected", study)
  released = kept(folder, "seed0/newton/1-released", study)
  for name, params in (
    ("distance", released),
    ("distance_before_noise", corrected),
  ):
    expected = np.linalg.norm(params - last)
    assert found[name] == pytest.approx(expected, abs=2e-6)
  test = study.dataset.test
  ones = np.ones((len(test["label"]), 1))
  p = softmax.probabilities(released, np.concatenate([test["input"], ones], 1))
  accuracy = np.mean(p.argmax(1) == test["label"])
  assert found["test_accuracy"] == pytest.approx(accuracy)
  # Only what is released is called by a hash that anyone can compute.
  for name, phase in (("newton", "newton/1-released"), ("retrain", "retrain")):
    path = folder / "checkpoints/seed0" / f"{phase}.json"
    plain = json.loads(path.read_text())["params_sha256"]
    assert (rows[name]["params_sha256"] == plain) == (name == "newton")


@pytest.fixture
def idle(monkeypatch):
  """Corrections that do nothing; training is left as it is."""
  newton = image_certified._newton

  def weak(model, l2, distance):
    working = newton(model, l2, distance)

    def transform(key, params, request):
      if any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(params)):
        return working(key, params, request)._replace(params=params)
      return working(key, params, request)

    return transform

  monkeypatch.setattr(image_certified, "_newton", weak)


def test_nothing_is_released_that_is_not_near(tmp_path, dataset, x64, idle):
  with pytest.raises(NotReachedError, match="Retrain, or allow"):
    run(tmp_path, study_of(dataset))
  assert not (tmp_path / RELEASE).exists()
  assert not list(tmp_path.glob("**/*-released"))


@pytest.mark.slow
def test_retrained_where_it_is_not_near(tmp_path, dataset, x64, idle):
  study = study_of(dataset, TERMS._replace(fallback="retrain"))
  run(tmp_path, study)
  retrained = kept(tmp_path, "seed0/newton/0-retrained", study)
  issued = certificate(tmp_path)
  error = np.linalg.norm(retrained - optimum(requests_of(study)[0].retain))
  assert issued["fallback"] and error <= issued["measured"]["result"]


@pytest.mark.slow
def test_a_spent_budget_ends_the_run(tmp_path, dataset, x64):
  with pytest.raises(BudgetError):
    run(tmp_path, study_of(dataset, TERMS._replace(planned_releases=1)))
  lines = (tmp_path / "releases/ledger.jsonl").read_text().splitlines()
  assert len(lines) == 1
  assert not (tmp_path / "checkpoints/seed0/newton/1-released").exists()


def test_a_training_that_does_not_end_is_refused(
  tmp_path, dataset, x64, monkeypatch
):
  monkeypatch.setattr(image_certified, "_STEPS", 1)
  image_certified._newton.cache_clear()
  with pytest.raises(ArithmeticError, match="seed0/original: Newton's method"):
    run(tmp_path, study_of(dataset))
  image_certified._newton.cache_clear()


# --- as a user starts it ---------------------------------------------------

IDS = "1001,1003,1007,1011"
SMALL = (
  "--certify",
  "--num_test=200",
  "--seeds=1",
  "--requests=2",
  f"--forget_ids={IDS}",
)
# Reads a run as `verify_certificate` does; prints what differs.
REMEASURE = """
import json, pathlib, sys
from absl import flags
from experiments.classification import remeasure
from experiments.release import register
from experiments.run import workdir
from experiments.verify_certificate import independent_check
from junlearn.certify import certificate
folder = pathlib.Path(sys.argv[1])
flags.FLAGS(["remeasure", *sys.argv[2:]])
workdir.restore_flags(folder)
reader, terms = remeasure.reader(folder), remeasure.promised()
lines = (folder / register.LEDGER).read_text().splitlines()
for name, line in zip(remeasure.releases(), lines, strict=True):
  answer, places = reader.answer(name)
  text = (folder / f"releases/{name}/certificate.json").read_text()
  again = register.certify(
    answer,
    terms,
    experiment="classification",
    config=(folder / "config.json").read_bytes(),
    salt=(folder / register.SALT).read_bytes(),
  )
  problems = [
    *certificate.differences(certificate.from_json(text), again),
    *independent_check.problems(
      reader.plain(answer, places), json.loads(text), json.loads(line)
    ),
  ]
  print(name, sorted(places), problems)
"""


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
  folder = tmp_path_factory.mktemp("certified")
  with contextlib.closing(Driver(folder, flags=SMALL)) as driver:
    yield driver


@pytest.fixture(scope="module")
def finished_certified(certified, tmp_path_factory):
  """Tests leave it as it is."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  code, out, err = certified(workdir)
  assert (code, out) == (0, f"{workdir}/report.html\n"), err
  return workdir


def remeasured(workdir, driver):
  """What measuring it again finds, a line a release."""
  data = next(f for f in driver.command(workdir) if "--data_dir" in f)
  ended = subprocess.run(
    [sys.executable, "-c", REMEASURE, str(workdir), data],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stderr
  return ended.stdout.splitlines()


@pytest.mark.slow
def test_every_certificate_is_measured_again(certified, finished_certified):
  assert remeasured(finished_certified, certified) == [
    f"seed0/newton/{index} ['before', 'original', 'retrain'] []"
    for index in range(2)
  ]


@pytest.mark.slow
def test_no_id_is_told(finished_certified):
  folder = finished_certified
  for name in ("report.md", "report.html"):
    page = (folder / name).read_text()
    assert not re.search(r"\b(1001|1003|1007|1011)\b", page)
    assert "left out" in page and "forget" in page
    assert "measured.result" not in page and "hashes." not in page
  for path in (folder / "releases").rglob("*.json*"):
    assert not re.search(r'[\["]1001\b', path.read_text()), path
  # What has them is closed to others.
  for name in ("config.json", "results.jsonl", "private", "checkpoints"):
    assert not stat.S_IMODE((folder / name).stat().st_mode) & 0o077
  told = json.loads((folder / "private/requests.json").read_text())
  assert told == {"seed0": [1001, 1003, 1007, 1011]}
  flags = json.loads((folder / "config.json").read_text())["flags"]
  assert flags["method"] == ["newton"] and "epochs" not in flags


@pytest.mark.slow
def test_a_continued_run_draws_no_noise_anew(
  certified, finished_certified, tmp_path
):
  copy = shutil.copytree(finished_certified, tmp_path / "copy")
  (copy / RELEASE / "1/params.safetensors").unlink()
  (copy / "results.jsonl").unlink()
  code, _, err = certified(copy)
  assert code == 0, err
  before, after = hashes(finished_certified), hashes(copy)
  released = [name for name in before if name.startswith("releases/")]
  assert len(released) >= 6
  assert {n: before[n] for n in released} == {n: after[n] for n in released}


@pytest.mark.slow
def test_features_as_a_user_names_them(
  certified, finished, finished_certified, tmp_path
):
  workdir = tmp_path / "run"
  code, out, err = certified(workdir, f"--features={finished}")
  assert (code, out) == (1, "")
  assert re.match(
    r"error: --features=.*trained on digits, records of which", err
  )
  assert not workdir.exists()
  other = shutil.copytree(finished, tmp_path / "net")
  config = json.loads((other / "config.json").read_text())
  config["flags"]["dataset"] = "fashion_mnist"
  (other / "config.json").write_text(json.dumps(config))
  code, _, err = certified(workdir, f"--features={other}")
  assert code == 0, err
  path = other / "checkpoints/seed0/original.json"
  told = certificate(workdir)["stated"]["features"]
  assert json.loads(path.read_text())["params_sha256"] in told
  assert all(line.endswith(" []") for line in remeasured(workdir, certified))
  assert certificate(finished_certified)["stated"]["features"] != told


@pytest.fixture
def restored():
  """Double precision as it was, and flags as of no command."""
  before = jax.config.jax_enable_x64
  for flag in flags.FLAGS.get_key_flags_for_module(classification):
    flag.unparse()
  yield
  jax.config.update("jax_enable_x64", before)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("given", "words"),
  [
    ("--method=amun", "--method=amun; with --certify it must be newton"),
    ("--method=newton,amun", "newton,amun; with --certify it must be"),
    ("--model=mlp", "--model=mlp: it is only read without --certify"),
    ("--epochs=3", "--epochs=3: it is only read without --certify"),
    ("--nouse_retain", "--nouse_retain: it is only read without --certify"),
    ("--nocertify", "--requests=2: it is only read with --certify"),
    ("--requests=5", "--requests=5: 5 requests were asked for; with 4"),
    ("--l2=0", r"--l2=0\.0; it must be finite and above 0"),
    ("--l2=inf", "--l2=inf; it must be finite and above 0"),
    ("--epsilon=-1", r"--epsilon=-1\.0; it must be above 0 and at most 20"),
    ("--delta=1", r"--delta=1\.0; it must be above 0 and below 1"),
    ("--max_distance=0", r"--max_distance=0\.0; it must be finite and above"),
    (
      "--features=nowhere",
      r"--features=nowhere: nowhere holds no config\.json",
    ),
    ("--forget_ids=1,7777", "--forget_ids=1,7777: .*7777, which no example"),
  ],
)
def test_bad_input(
  certified, finished_certified, tmp_path, restored, given, words
):
  del finished_certified  # prepares the data
  command = certified.command(tmp_path / "run", *given.split())[2:]
  with pytest.raises(ValueError, match=words) as caught:
    classification.main(flags.FLAGS(command)[1:])
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "run").exists()
