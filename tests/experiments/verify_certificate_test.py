"""A small experiment whose runs can be measured again, and its forgeries."""

import json
import subprocess
import sys
import types

import numpy as np
import pytest

from experiments import verify_certificate
from junlearn import tree
from junlearn.certify import certificate, fingerprint, ledger
from junlearn.certify.derived import derive, head_of

L2, MAX_DISTANCE = 0.1, 1e-3
SALT = bytes(32)
SIZE = 400
CERTIFICATE = "releases/a/0/certificate.json"
LEDGER = "releases/a/ledger.jsonl"


def state():
  """What the experiment keeps: unlearned and released params."""
  rng = np.random.default_rng(0)
  clean = {"w": rng.normal(size=SIZE)}
  return rng, clean


def remeasure(folder, name, index):
  """The distance and the fingerprints, from the data; here they are known."""
  released = {"w": np.load(folder / "released.npy")}
  clean = state()[1]
  return {
    "hashes.forget_ids": fingerprint.record_set([1, 2], salt=SALT),
    "hashes.retain_ids": fingerprint.record_set([3, 4, 5], salt=SALT),
    "hashes.params_before": fingerprint.params(clean, salt=SALT),
    "hashes.params_after": tree.digest(released),
    "measured.result": 2e-4 * (1 + 1e-12),
    "head.arguments.input_norm": 1.2,
    "noise.square": float(np.sum((released["w"] - clean["w"]) ** 2)),
  }


def write(folder, *, noise=1.0, gradient_norm=2e-5, mode="residual_stopped"):
  """A run of the experiment."""
  config = json.dumps({"flags": {"seed": 0}}, indent=2) + "\n"
  (folder / "config.json").write_text(config)
  rng, clean = state()
  options = {
    "experiment": "toy",
    "mode": mode,
    "epsilon": 1.0,
    "delta": 1e-5,
    "max_distance": None if mode == "reported" else MAX_DISTANCE,
    "comparator": 0.0,
    "noise_dimensions": SIZE,
    "measured": derive("residual", gradient_norm=gradient_norm, l2=L2),
    "head": head_of("logistic", input_norm=1.5, l2=L2),
    "assumptions": ["The noise key was drawn from entropy."],
    "iterations": 2,
    "seeds": {"data": fingerprint.seed(0, salt=SALT)},
  }
  hashes = certificate.Hashes(*["0" * 64] * 5)
  sigma = certificate.issue(**options, hashes=hashes).sigma
  released = {"w": clean["w"] + noise * sigma * rng.normal(size=SIZE)}
  np.save(folder / "released.npy", released["w"])
  issued = certificate.issue(
    **options,
    hashes=certificate.Hashes(
      config=certificate.sha256(config),
      forget_ids=fingerprint.record_set([1, 2], salt=SALT),
      retain_ids=fingerprint.record_set([3, 4, 5], salt=SALT),
      params_before=fingerprint.params(clean, salt=SALT),
      params_after=tree.digest(released),
    ),
  )
  text = certificate.to_json(issued)
  (folder / CERTIFICATE).parent.mkdir(parents=True)
  (folder / CERTIFICATE).write_text(text)
  ledger.append(
    folder / LEDGER,
    request="1",
    records=fingerprint.records([1, 2], salt=SALT),
    params_before=issued.hashes.params_before,
    params_after=issued.hashes.params_after,
    epsilon=2.0,
    delta=1e-5,
    distance=issued.distance,
    sigma=issued.sigma,
    certificate=certificate.sha256(text),
  )
  return issued


@pytest.fixture
def toy(monkeypatch):
  module = types.ModuleType("toy_experiment")
  module.remeasure = remeasure
  monkeypatch.setitem(sys.modules, "toy_experiment", module)
  monkeypatch.setitem(verify_certificate.EXPERIMENTS, "toy", "toy_experiment")
  return module


@pytest.fixture
def run(tmp_path, toy):
  write(tmp_path)
  return tmp_path


def problems(folder, **options):
  return list(verify_certificate.problems(folder, **options))


def replace(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


def test_an_honest_run_agrees(run):
  assert problems(run) == []
  head = ledger.read(run / LEDGER)[-1].hash
  assert problems(run, heads=[head]) == []
  (problem,) = problems(run, heads=["0" * 64])
  assert problem.startswith("0000") and "is the head of no ledger" in problem


@pytest.mark.parametrize("name", [CERTIFICATE, LEDGER, "config.json"])
def test_every_edited_byte_names_the_file(run, toy, name):
  toy.remeasure = lambda *_: dict.fromkeys(())  # not what is tested here
  path = run / name
  content = path.read_bytes()
  for position in range(0, len(content), 3):
    edited = bytes([content[position] ^ 1])
    path.write_bytes(content[:position] + edited + content[position + 1 :])
    found = [p for p in problems(run) if "was not measured again" not in p]
    assert found, position
    # The ledger's hash of the certificate is what finds its free text.
    assert any(name in problem for problem in found), position


def test_a_forged_number_is_named(run):
  stored = certificate.from_json((run / CERTIFICATE).read_text())
  replace(run / CERTIFICATE, repr(stored.sigma), "0.001")
  found = problems(run)
  assert any(p.startswith(f"{CERTIFICATE}: sigma is 0.001") for p in found)


def test_a_distance_that_was_not_measured_is_found(tmp_path, toy):
  write(tmp_path, gradient_norm=1e-5)
  (problem,) = problems(tmp_path)
  assert problem.startswith(f"{CERTIFICATE}: measured.result is 0.0001")


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.5])
def test_noise_of_another_scale_is_found(tmp_path, toy, noise):
  write(tmp_path, noise=noise)
  (problem,) = problems(tmp_path)
  assert problem.startswith(f"{CERTIFICATE}: sigma is ")
  assert "the noise released has the scale" in problem


def test_released_params_are_those_of_the_certificate(run):
  released = np.load(run / "released.npy")
  released[0] += 1e-12
  np.save(run / "released.npy", released)
  (problem,) = problems(run)
  assert problem.startswith(f"{CERTIFICATE}: hashes.params_after is ")


def test_a_limit_below_what_is_measured_is_found(run, toy):
  measured = remeasure(run, "a", 0)
  toy.remeasure = lambda *_: {**measured, "head.arguments.input_norm": 1.6}
  (problem,) = problems(run)
  assert problem.startswith(f"{CERTIFICATE}: head.arguments.input_norm is")


def test_what_is_not_measured_again_is_named(run, toy):
  toy.remeasure = lambda *_: {"measured.result": 2e-4}
  found = problems(run)
  assert len(found) == 5
  assert f"{CERTIFICATE}: noise.square was not measured again." in found


def test_another_certificate_than_the_ledgers(run):
  write_again = json.loads((run / CERTIFICATE).read_text())
  write_again["iterations"] = 1
  text = json.dumps(write_again, indent=2) + "\n"
  (run / CERTIFICATE).write_text(text)
  (problem,) = problems(run)
  assert problem.startswith(f"{LEDGER}: line 1: certificate is ")


def test_a_changed_configuration(run):
  replace(run / "config.json", "0", "1")
  (problem,) = problems(run)
  assert problem.startswith("config.json: its SHA-256 is ")


def test_a_reported_run_certifies_nothing(tmp_path, toy):
  write(tmp_path, mode="reported")
  (problem,) = problems(tmp_path)
  assert problem.startswith(f"{CERTIFICATE}: certified is False")


def test_an_unknown_experiment(run, monkeypatch):
  monkeypatch.delitem(verify_certificate.EXPERIMENTS, "toy")
  (problem,) = problems(run)
  assert problem.startswith(f"{CERTIFICATE}: experiment is 'toy'")


def test_missing_files_are_named(run):
  assert problems(run / "none") == [
    f"{run / 'none'}: holds no releases with a ledger.jsonl."
  ]
  (run / CERTIFICATE).unlink()
  (problem,) = problems(run)
  assert problem.startswith(f"{CERTIFICATE}: cannot be read")


def test_a_line_that_was_cut_off(run):
  (run / LEDGER).write_text("")
  (problem,) = problems(run)
  assert problem == f"{LEDGER}: has no line 1, for {CERTIFICATE}."


def test_the_program_ends_by_what_it_found(run, capsys, monkeypatch):
  no_head = types.SimpleNamespace(value=[])
  monkeypatch.setattr(verify_certificate, "_HEAD", no_head)
  verify_certificate.main([str(run)])
  assert "all agrees" in capsys.readouterr().out
  replace(run / "config.json", "0", "1")
  with pytest.raises(SystemExit) as ended:
    verify_certificate.main([str(run)])
  assert ended.value.code == 1
  assert capsys.readouterr().out.startswith("config.json: ")


def test_the_command(tmp_path):
  command = [sys.executable, "-m", "experiments.verify_certificate"]
  missing = subprocess.run(
    [*command, str(tmp_path)], capture_output=True, text=True, check=False
  )
  assert missing.returncode == 1
  assert "holds no releases" in missing.stdout
  none = subprocess.run(command, capture_output=True, text=True, check=False)
  assert none.returncode == 1
  assert "0 folders were given" in none.stderr
