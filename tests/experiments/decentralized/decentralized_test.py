"""The decentralized experiment as a user starts it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.bench.forgeries.folder import read_json, write_json
from experiments.bench.forgeries.rewrite import rewrite
from experiments.release import register
from junlearn.certify import signing
from junlearn.storage import checkpoint
from tests.experiments.driver import ROOT, Driver, read_rows

pytestmark = pytest.mark.slow

SMALL = (
  "--clients=4",
  "--num_train=200",
  "--num_test=100",
  "--seeds=1",
  "--l2=0.1",
  "--rounds=200",
  "--finetune_rounds=3",
  "--tolerance=1e-4",
)
NEWTON = "releases/seed0/newton/0"
CONSENSUS = "releases/seed0/consensus/1"
CERTIFICATE = f"{NEWTON}/certificate.json"
# A correction of one step, which leaves something to retrain.
ONE_STEP = (
  "import runpy; from experiments.decentralized import study; "
  "study._NEWTON_STEPS = 1; runpy.run_module('experiments.decentralized', "
  "run_name='__main__', alter_sys=True)"
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
  return tmp_path_factory.mktemp("network")


@pytest.fixture(scope="module")
def run(places):
  driver = Driver(places, "experiments.decentralized", SMALL)
  with contextlib.closing(driver):
    yield driver


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
  """A run of two successive requests; tests leave it as it is."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  code, out, err = run(workdir, "--requests=2")
  assert (code, out) == (0, f"{workdir}/report.html\n"), err
  return workdir


@pytest.fixture
def copy(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture(scope="module")
def verify(places):
  """Exit code and lines of the verification."""

  def run(workdir, *flags):
    command = [sys.executable, "-m", "experiments.verify_certificate"]
    given = [workdir, f"--cache_dir={places / 'compiled'}", *flags]
    ended = subprocess.run(
      [*command, *map(str, given)],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    return ended.returncode, (ended.stdout + ended.stderr).splitlines()

  return run


def metrics(workdir):
  return {row["method"]: row["metrics"] for row in read_rows(workdir)}


def kept(workdir, phase):
  """What a phase's record says of its params."""
  return read_json(workdir / "checkpoints" / f"{phase}.json")["params_sha256"]


def lines(workdir):
  text = (workdir / register.LEDGER).read_text()
  return [json.loads(line) for line in text.splitlines()]


def sign_anew(workdir):
  """As who holds the run's own key can."""
  pem = (workdir / register.SIGNING_KEY).read_bytes()
  rewrite(workdir, signing.load_key(pem))


def test_a_run_leaves_what_it_must(finished):
  found = metrics(finished)
  assert list(found) == [
    "retrain", "original", "newton", "consensus", "finetune"
  ]  # fmt: skip
  newton, original = found["newton"], found["original"]
  assert newton["distance_before_noise"] < 1e-3 < original["distance"]
  assert newton["bound"] <= 1e-3
  # The noise is nearly all of what a release is off by.
  parameters = 4 * (64 * 10 + 10)
  expected = newton["sigma"] * np.sqrt(parameters)
  assert newton["distance"] == pytest.approx(expected, rel=0.1)
  arrays = np.load(finished / "evidence/seed0/original.npz")
  np.testing.assert_allclose(
    arrays["influence"], arrays["distances"], rtol=0.05
  )
  arrays = np.load(finished / "evidence/seed0/newton.npz")
  apart = np.linalg.norm(arrays["distances_before_noise"])
  assert newton["distance_before_noise"] == pytest.approx(apart)
  # The curve goes through both requests and ends before the noise.
  steps, distances = arrays["curve"].T
  assert np.all(np.diff(steps) > 0) and distances[-1] == pytest.approx(apart)
  assert newton["communication_rounds"] == steps[-1]
  assert found["finetune"]["communication_rounds"] == 3
  assert found["retrain"]["communication_rounds"] == 200
  assert original["communication_rounds"] == 0
  page = (finished / "report.html").read_text()
  assert "Every record counts once" in page and "<svg" in page


def test_all_releases_share_the_budget(finished):
  found = lines(finished)
  assert [line["request"] for line in found] == [
    f"seed0/{method}/{index}"
    for method in ("newton", "consensus")
    for index in range(2)
  ]
  spent = [line["spent"] for line in found]
  np.testing.assert_allclose(spent, spent[0] * np.sqrt([1, 2, 3, 4]))
  assert found[-1]["left"] == pytest.approx(0, abs=1e-2)
  assert found[1]["params_before"] != found[0]["params_after"]


def test_the_page_has_the_certificate_s_sigma(finished):
  issued = read_json(finished / CERTIFICATE)
  assert issued["sigma"] == metrics(finished)["newton"]["sigma"]
  page = (finished / "report.html").read_text()
  row = page.split('<th scope="row">each release of this run</th>')[1]
  shown = row.split("</tr>")[0]
  assert f"<td>{issued['epsilon']:.4g}</td>" in shown
  assert f"<td>{issued['sigma']:.3g}</td>" in shown


def test_what_may_be_read_names_nobody(finished):
  """Neither records, nor params without noise by a hash one could try."""
  requests = read_json(finished / "private/requests.json")["seed0"]
  assert len(requests) > 3
  told = [", ".join(map(str, requests)), ",".join(map(str, requests))]
  unreleased = [
    read_json(path)["sha256"]
    for path in finished.glob("checkpoints/**/sha256.json")
    if not path.parent.name.endswith("-released")
  ]
  assert len(unreleased) >= 7
  for name in ("report.html", "report.md", "results.jsonl"):
    text = (finished / name).read_text()
    assert not any(each in text for each in [*told, *unreleased]), name
  released = {row["params_sha256"] for row in read_rows(finished)}
  assert kept(finished, "seed0/newton/1-released") in released


def test_forgotten_ids_are_not_on_the_page(run, tmp_path):
  workdir = tmp_path / "run"
  ids = "181,187,199"
  code, _, err = run(workdir, f"--forget_ids={ids}", "--method=newton")
  assert code == 0, err
  for name in ("report.html", "report.md", "results.jsonl"):
    assert ids not in (workdir / name).read_text()
    assert "187" not in (workdir / name).read_text().split("<svg")[0]
  assert ids in (workdir / "config.json").read_text()


def test_private_files_are_their_owner_s(finished):
  for name in ("private", "checkpoints", "evidence"):
    assert (finished / name).stat().st_mode & 0o777 == 0o700
  for name in ("config.json", "results.jsonl", *_names(finished / "private")):
    assert (finished / name).stat().st_mode & 0o777 == 0o600, name
  key = (finished / register.PUBLIC_KEY).read_text().strip()
  assert {line["signer"] for line in lines(finished)} == {key}


def _names(folder):
  return [f"private/{path.name}" for path in folder.iterdir()]


def test_everything_is_verified(finished, verify):
  code, found = verify(finished)
  assert code == 0, found
  last = lines(finished)[-1]
  (told,) = found
  assert told.startswith(f"{finished}: all agrees on 4 releases at epsilon 1 ")
  assert f"{last['hash']}, signed by {last['signer']}." in told
  code, found = verify(finished, f"--head={lines(finished)[0]['hash']}")
  assert code == 1 and "is not the head" in found[0]


def test_an_edited_byte_is_found(copy, verify):
  path = copy / CERTIFICATE
  path.write_text(path.read_text().replace('"epsilon": 0', '"epsilon": 1', 1))
  code, found = verify(copy)
  assert code == 1
  assert any(f"{CERTIFICATE}: sigma" in line for line in found)


def test_a_certificate_without_its_constants_is_found(copy, verify):
  content = read_json(copy / CERTIFICATE)
  write_json(copy / CERTIFICATE, content | {"head": None})
  sign_anew(copy)
  code, found = verify(copy)
  assert code == 1
  assert any(f"{CERTIFICATE}: head" in line for line in found), found


def test_rows_without_noise_are_found(copy, verify, x64):
  """All of a consensus but its first client's params, as they were before."""
  path = copy / CONSENSUS / "params.safetensors"
  like = {"params": {"Dense_0": {"kernel": (4, 64, 10), "bias": (4, 10)}}}
  like = jax.tree.map(
    np.zeros, like, is_leaf=lambda node: isinstance(node, tuple)
  )
  exact = checkpoint.load(
    copy / "checkpoints/seed0/consensus/1-corrected", like
  )
  released = register.from_safetensors(path, like)
  mixed = jax.tree.map(
    lambda a, b: np.concatenate([a[:1], b[1:]]), released, exact
  )
  path.write_bytes(register.to_safetensors(mixed))
  sign_anew(copy)
  code, found = verify(copy)
  assert code == 1
  assert any("differ from the first; a consensus" in line for line in found)


def test_random_forgeries_are_found(finished, tmp_path):
  """All but those that are known to be harmless; nothing ends in a crash."""
  out = tmp_path / "forgeries.md"
  given = [f"--run={finished}", "--edits=24", "--seed=1", f"--out={out}"]
  ended = subprocess.run(
    [sys.executable, "-m", "experiments.bench.forgeries", *given],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert "| all | edits | 12 |" in out.read_text()


def test_a_continued_run_draws_no_noise_anew(run, finished, copy):
  (copy / "results.jsonl").unlink()
  code, _, err = run(copy, "--requests=2")
  assert code == 0, err
  for before, after in zip(read_rows(finished), read_rows(copy), strict=True):
    assert before["params_sha256"] == after["params_sha256"]
  assert lines(copy) == lines(finished)


def test_a_budget_for_fewer_releases_is_refused(run, tmp_path):
  workdir = tmp_path / "run"
  code, out, err = run(workdir, "--requests=2", "--planned_releases=1")
  assert (code, out) == (1, "")
  assert "--planned_releases=1; it must be at least 4: the run makes" in err
  assert not workdir.exists()


def test_a_release_is_never_drawn_again(run, finished, tmp_path):
  """Its line in the ledger stands for one draw."""
  copy = shutil.copytree(finished, tmp_path / "copy")
  kept = copy / "checkpoints/seed0/newton/1-released"
  shutil.rmtree(kept)
  params = copy / "releases/seed0/newton/1/params.safetensors"
  before = params.read_bytes()
  code, _, err = run(copy, "--requests=2")
  assert code == 1
  assert "seed0/newton/1 is in the ledger, and its noise is drawn once" in err
  assert not kept.exists()
  assert (
    copy / "releases/seed0/newton/1/params.safetensors"
  ).read_bytes() == before


def test_what_is_not_reached_is_retrained(places, tmp_path, verify):
  workdir = tmp_path / "run"
  given = {
    *SMALL[:5],
    *("--rounds=800", "--tolerance=1e-9", "--finetune_rounds=1"),
    *("--max_distance=1e-6", "--method=newton,consensus"),
    *("--fallback=retrain", f"--cache_dir={places / 'compiled'}"),
  }
  ended = subprocess.run(
    [sys.executable, "-c", ONE_STEP, f"--workdir={workdir}", *given],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stderr
  for method in ("newton", "consensus"):
    place = workdir / "releases/seed0" / method / "0"
    issued = read_json(place / "certificate.json")
    assert issued["fallback"] is True
    assert issued["measured"]["result"] <= 1e-6
    again = kept(workdir, f"seed0/{method}/0-retrained")
    assert again != kept(workdir, f"seed0/{method}/0-corrected")
  code, found = verify(workdir)
  assert code == 0, found


def test_killed_and_started_again(run, finished, tmp_path):
  workdir = tmp_path / "run"
  flags = ("--requests=2", "--checkpoint_seconds=0")
  for seconds in (4, 6, 8):  # while it starts, trains, releases
    process = run.start(workdir, *flags)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.communicate(timeout=seconds)
    process.kill()
    process.communicate()
  code, _, err = run(workdir, *flags)
  assert code == 0, err
  for phase in ("original", "retrain", "finetune", "newton/1-corrected"):
    assert kept(workdir, f"seed0/{phase}") == kept(finished, f"seed0/{phase}")


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--edges=0-1,2-3", "not connected"),
    ("--edges=0:1", "--edges=0:1: '0:1' is no edge; each must be two whole"),
    (
      "--max_distance=1e-15",
      "nothing was released. Retrain, or allow a larger",
    ),
    ("--max_distance=0", "--max_distance=0.0; it must be finite and above 0."),
    ("--epsilon=-1", "--epsilon=-1.0; it must be above 0"),
    ("--delta=2", "--delta=2.0; it must be above 0 and below 1."),
    ("--signing_key=nowhere", "error: --signing_key: "),
    ("--rounds=2", "above --tolerance=0.0001; take more --rounds."),
    ("--model=mlp", "--model=mlp: the model is not linear in its parameters"),
    ("--precision=float32", "newton, consensus are certified, which needs"),
    ("--forget_client=4", "--forget_client=4: client is 4; it must be in"),
    ("--requests=40", "records to forget"),
  ],
)
def test_bad_input(run, tmp_path, flag, words):
  code, out, err = run(tmp_path / "run", flag)
  assert (code, out) == (1, "")
  last = err.splitlines()[-1]
  assert last.startswith("error: ") and words in last
  assert "Traceback" not in err
  assert not list((tmp_path / "run").glob("**/*-released"))


def test_a_job_of_two_processes(run, finished, tmp_path):
  """Clients spread over four devices of two processes."""
  workdir = tmp_path / "job"
  processes = run.start_job(workdir, "--requests=2", "--backend=pmap")
  outputs = [process.communicate(timeout=300) for process in processes]
  assert [p.returncode for p in processes] == [0, 0], outputs
  alone, spread = metrics(finished), metrics(workdir)
  for method in ("original", "finetune"):
    for name, value in alone[method].items():
      assert spread[method][name] == pytest.approx(value, rel=1e-9), name
  assert spread["newton"]["bound"] <= 1e-3
