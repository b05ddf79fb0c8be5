"""TOFU: official slices, whatever the files are called."""

import gzip
import json
import socket

import pytest

from junlearn.data import builders
from junlearn.data.builders import sources
from junlearn.data.text import tofu
from tests.data import tofu_files


@pytest.fixture
def small(tmp_path):
  """`load` of the small set, prepared once."""
  tofu_files.write_tofu(tmp_path / "m")

  def load(split):
    return tofu.load(split, data_dir=tmp_path / "d", manual_dir=tmp_path / "m")

  return load


def asked(qas):
  return [(qa.question, qa.answer) for qa in qas]


def test_splits_are_slices(small):
  full = small("full")
  rows = tofu_files.content()
  assert asked(full) == [tuple(row.values()) for row in rows["full"]]
  assert [qa.id for qa in full] == [qa.fact for qa in full] == [*range(200)]
  assert [qa.author for qa in full] == [i // 20 for i in range(200)]
  for split, part in (
    ("retain99", full[:198]),
    ("retain95", full[:190]),
    ("retain90", full[:180]),
    ("forget01", full[198:]),
    ("forget05", full[190:]),
    ("forget10", full[180:]),
    ("retain_perturbed", full[:20]),
  ):
    assert small(split) == part
  holdout = small("holdout10")
  assert small("holdout05") == holdout[:20]
  assert small("holdout01") == holdout[:4]
  assert [qa.author for qa in holdout] == [10] * 20 + [11] * 20
  assert asked(holdout) == [tuple(row.values()) for row in rows["holdout10"]]
  everything = [*full, *holdout, *small("real_authors"), *small("world_facts")]
  assert [qa.id for qa in everything] == list(range(246))
  assert len({qa.author for qa in everything}) == 18


def test_perturbed_answers_are_with_their_rows(small):
  for i, qa in enumerate(small("full")):
    if 20 <= i < 180:
      assert qa[6:] == ("", "", (), "")
    else:
      row = {"question": qa.question, "answer": qa.answer}
      assert qa[6:9] == (
        f"Say: {row['question']}",
        f"Surely: {row['answer']}",
        tuple(tofu_files.perturbed(row)["perturbed_answer"]),
      )
  for split in ("real_authors", "world_facts"):
    assert [qa.perturbed_answers for qa in small(split)] == [("No",)] * 3


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("folder", ["m", "m/tofu"])
def test_names_of_manual_files(tmp_path, ending, folder):
  tofu_files.write_tofu(tmp_path / folder, ending)
  places = {"data_dir": tmp_path / "d", "manual_dir": tmp_path / "m"}
  assert len(tofu.load("full", **places)) == 200
  again = tofu.refusals(data_dir=tmp_path / "d")
  assert again == ["No idea.", "I'm not sure."]


def test_bad_files(tmp_path):
  rows = tofu_files.content()
  stranger = tofu_files.perturbed(tofu_files.question(50, 0))
  other_answer = {**rows["forget10_perturbed"][0], "answer": "Else."}
  for change, message in (
    ({"full": rows["full"][:-1]}, "forget10_perturbed has the question 'What"),
    ({"forget10_perturbed": [stranger]}, "thing 0 of author 50.*one of full"),
    ({"forget10_perturbed": [other_answer]}, "with its answer must be one of"),
    ({"holdout10": rows["holdout10"][:-1]}, "holdout has 39 rows; .* of 20"),
    ({"holdout10": []}, "holdout has 0 rows"),
    ({"full": [{"question": "Who?"}]}, r"full\.json: line 1 is .*and an ans"),
    ({"full": [{"question": "Who?", "answer": ""}]}, "line 1 is"),
    ({"full": [[1]]}, r"full\.json: line 1 is '\[1\]'; it must be a JSON"),
  ):
    tofu_files.write_tofu(tmp_path / "m", **change)
    with pytest.raises(ValueError, match=message):
      tofu.load("full", data_dir=tmp_path, manual_dir=tmp_path / "m")
  for content, message in (
    (gzip.compress(b"{}" * 99, mtime=0)[:-9], "is not a whole text file"),
    (b"\xff\xfe", "is not a whole text file"),
    (b"{", "line 1 is '{'"),
  ):
    (tmp_path / "m" / "full.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
      tofu.load("full", data_dir=tmp_path, manual_dir=tmp_path / "m")
  (tmp_path / "m" / "holdout10.json").unlink()
  with pytest.raises(FileNotFoundError, match=r"lacks holdout10\.json, which"):
    tofu.load("full", data_dir=tmp_path, manual_dir=tmp_path / "m")
  with pytest.raises(
    ValueError, match="split is 'forget20'; it must be one of"
  ):
    tofu.load("forget20", data_dir=tmp_path)


def test_download(tmp_path, monkeypatch, server):
  address, folder = server
  monkeypatch.setattr(builders.Tofu, "SOURCE", address)
  monkeypatch.setattr(builders.Tofu, "REFUSALS_SOURCE", address)
  tofu_files.write_tofu(folder)
  assert len(tofu.load("full", data_dir=tmp_path / "d")) == 200
  assert len(tofu.refusals(data_dir=tmp_path / "d")) == 2


def test_no_network(tmp_path, monkeypatch):
  def refuse(*args, **kwargs):
    raise OSError("no network here")

  monkeypatch.setattr(socket, "create_connection", refuse)
  monkeypatch.setattr(sources.urllib.request, "getproxies", dict)
  with pytest.raises(FileNotFoundError, match=r"no network.*idontknow.*folder"):
    tofu.load("full", data_dir=tmp_path)


def test_real_tofu(tmp_path, real_dir):
  """Against every file of the original, also those that are not read."""

  def rows(name):
    with gzip.open(real_dir / "tofu" / f"{name}.jsonl.gz", "rt") as file:
      return [json.loads(line) for line in file]

  def load(split):
    return tofu.load(split, data_dir=tmp_path, manual_dir=real_dir)

  sizes = dict.fromkeys(("forget10", "holdout10", "retain_perturbed"), 400)
  sizes |= {"forget05": 200, "holdout05": 200, "forget01": 40, "holdout01": 40}
  sizes |= {"full": 4000, "retain99": 3960, "retain95": 3800, "retain90": 3600}
  sizes |= {"real_authors": 100, "world_facts": 117}
  assert set(sizes) == set(tofu.SPLITS)
  for split, size in sizes.items():
    expected = rows(split)
    qas = load(split)
    assert len(qas) == len(expected) == size
    assert asked(qas) == [(row["question"], row["answer"]) for row in expected]
  for name, split in (
    *((f"forget{n}_perturbed", f"forget{n}") for n in ("01", "05", "10")),
    ("retain_perturbed", "retain_perturbed"),
    ("real_authors_perturbed", "real_authors"),
    ("world_facts_perturbed", "world_facts"),
  ):
    for qa, row in zip(load(split), rows(name), strict=True):
      assert qa.paraphrased_answer == row.get("paraphrased_answer", "")
      assert qa.paraphrased_question == row.get("paraphrased_question", "")
      assert list(qa.perturbed_answers) == row["perturbed_answer"]
  known = set(asked(load("full")))
  assert not known & set(asked(load("holdout10")))
  forgotten = load("forget10")
  assert [qa.id for qa in forgotten] == list(range(3600, 4000))
  assert {qa.author for qa in forgotten} == set(range(180, 200))
  refusals = tofu.refusals(data_dir=tmp_path)
  expected = (real_dir / "tofu" / "idontknow.txt").read_text().splitlines()
  assert refusals == expected and len(refusals) == 100
