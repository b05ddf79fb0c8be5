import concurrent.futures
import contextlib
import hashlib
import json
import math
import subprocess
import sys
import time

import pytest

from junlearn.certify import accountant, calibrate, ledger, signing

HASHES = [f"{k:064x}" for k in range(10)]
KEY, OTHER = (signing.load_key(signing.new_key()) for _ in range(2))
PUBLIC = signing.public_key(KEY)


def line(k, **changes):
  return {
    "key": KEY,
    "request": f"request {k}",
    "records": (HASHES[k], HASHES[k + 1]),
    "params_before": HASHES[k],
    "params_after": HASHES[k + 2],
    "epsilon": 1.0,
    "delta": 1e-5,
    "distance": 0.1,
    "sigma": 1.0,
    "certificate": HASHES[k + 3],
    **changes,
  }


@pytest.fixture
def path(tmp_path):
  """A ledger of four releases."""
  path = tmp_path / "ledger.jsonl"
  for k in range(4):
    ledger.append(path, **line(k))
  return path


def rewrite(path, change):
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join(change(lines)))


def digest(fields):
  """The hash of a line, from its JSON."""
  text = json.dumps({**fields, "hash": "", "signature": ""})
  return hashlib.sha256(text.encode()).hexdigest()


def written_anew(path, key=None, at=None, **changes):
  """The ledger with one line changed, or none, by who knows how it is made.

  Hashes, the chain, and from that line on budgets are computed again; lines are
  signed where there is a key, and keep their signatures otherwise.
  """
  previous, spent, lines = "0" * 64, 0.0, []
  for k, text in enumerate(path.read_text().splitlines()):
    fields = json.loads(text)
    changed = changes if k == at else {}
    if key is not None:
      fields["signer"] = signing.public_key(key)
    fields |= {"previous": previous, **changed}
    spent = math.hypot(spent, fields["distance"] / fields["sigma"])
    whole = 1 / calibrate.gaussian_sigma(fields["epsilon"], fields["delta"], 1)
    if at is not None and k >= at:
      left = math.sqrt(max(whole**2 - spent**2, 0))
      fields |= {"spent": spent, "left": left, **changed}
    fields["hash"] = previous = digest(fields)
    if key is not None:
      fields["signature"] = signing.sign(key, previous.encode())
    lines.append(json.dumps(fields) + "\n")
  path.write_text("".join(lines))


def test_what_was_appended_is_read(path):
  entries = ledger.read(path)
  assert [entry.index for entry in entries] == [0, 1, 2, 3]
  for k, entry in enumerate(entries):
    written = line(k)
    del written["key"]
    assert {name: getattr(entry, name) for name in written} == written
    assert entry.signer == PUBLIC and entry.hash == digest(entry._asdict())
    assert signing.verify(PUBLIC, entry.hash.encode(), entry.signature)
  head = entries[-1].hash
  assert ledger.read(path, head=head, public_key=PUBLIC) == entries
  assert ledger.append(path, **line(4)).previous == head


def test_the_account_is_that_of_the_lines(path):
  entries = ledger.read(path)
  expected = accountant.Account(1.0, 1e-5)
  for entry in entries:
    expected = expected.add(0.1, 1.0)
    assert entry.spent == expected.spent and entry.left == expected.left
  assert ledger.account(entries) == expected


def test_every_edited_byte_is_found_and_its_line_named(path):
  """Each byte changed in one bit, removed, or another put before it."""
  rewrite(path, lambda lines: lines[:2])
  content = path.read_bytes()
  for position in range(len(content)):
    number = content[:position].count(b"\n") + 1
    before, after = content[:position], content[position + 1 :]
    edits = [before + bytes([content[position] ^ 1]) + after]
    if position % 7 == 0:
      edits += [before + after, before + b" " + content[position:]]
    for edited in edits:
      path.write_bytes(edited)
      with pytest.raises(ledger.LedgerError, match=rf"^line {number} "):
        ledger.read(path)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda x: x[1:], "line 1 was removed: what stands there was line 2"),
    (lambda x: x[:1] + x[2:], "line 2 was removed: .* line 3"),
    (lambda x: [x[0], x[2], x[1], x[3]], "line 2 was moved: it was line 3"),
    (lambda x: [x[3], *x[:3]], "line 1 was moved: it was line 4"),
    (lambda x: [*x, x[3]], "line 5 was moved: it was line 4"),
    (lambda x: [*x[:3], x[3][:-20]], "line 4 is cut short"),
    (lambda x: [*x[:3], x[3].rstrip()], "line 4 is cut short"),
    (lambda x: [*x, b"{"], "line 5 is cut short"),
    (lambda x: [*x, b"\n"], "line 5 was edited: not JSON"),
    (lambda x: [*x, b"\xff\n"], "line 5 was edited"),
  ],
)
def test_removed_and_moved_lines_are_named(path, change, message):
  rewrite(path, change)
  with pytest.raises(ledger.LedgerError, match=message):
    ledger.read(path)


def test_a_line_written_anew_breaks_the_chain(path):
  """Signed with the right key, by who leaves the lines after it."""
  old = path.read_bytes().splitlines(keepends=True)
  written_anew(path, KEY, at=1, request="another")
  ledger.read(path)
  rewrite(path, lambda lines: [*lines[:2], *old[2:]])
  with pytest.raises(ledger.LedgerError, match="line 3 does not follow"):
    ledger.read(path)


FORGED = {
  "request": "another",
  "records": [HASHES[1]],
  "params_before": HASHES[9],
  "params_after": HASHES[9],
  "distance": 0.1 * 1.001,
  "sigma": 1.001,
  "certificate": HASHES[9],
}
# What something else determines; no key helps.
DETERMINED = {
  "index": 2,
  "epsilon": 1.001,
  "delta": 1.001e-5,
  "spent": 0.1,
  "left": 0.2,
  "previous": HASHES[9],
}
SIGNED = {"signer": signing.public_key(OTHER), "signature": f"{7:0128x}"}


@pytest.mark.parametrize("field", (*ledger.Entry._fields[:-2], "signature"))
def test_who_lacks_the_key_can_change_nothing(path, field):
  """All hashes of the chain are those of the new content."""
  value = (FORGED | DETERMINED | SIGNED)[field]
  written_anew(path)
  ledger.read(path)  # nothing was changed
  written_anew(path, at=1, **{field: value})
  with pytest.raises(ledger.LedgerError, match=r"line 2 .* its signature is"):
    ledger.read(path)


@pytest.mark.parametrize("field", FORGED)
def test_who_has_the_key_is_found_by_the_head(path, field):
  head = ledger.read(path)[-1].hash
  written_anew(path, KEY, at=1, **{field: FORGED[field]})
  ledger.read(path, public_key=PUBLIC)
  with pytest.raises(ledger.LedgerError, match="line 4 is not the head"):
    ledger.read(path, head=head)


@pytest.mark.parametrize("field", DETERMINED)
def test_the_key_does_not_change_what_is_determined(path, field):
  written_anew(path, KEY, at=1, **{field: DETERMINED[field]})
  with pytest.raises(ledger.LedgerError, match="line 2"):
    ledger.read(path, public_key=PUBLIC)


def test_another_key_is_found_by_the_public_key_or_the_head(path):
  head = ledger.read(path)[-1].hash
  written_anew(path, OTHER, at=2, distance=1e-3)
  ledger.read(path)  # nothing in the file tells
  with pytest.raises(
    ledger.LedgerError, match=f"line 1 was signed by .*{PUBLIC}"
  ):
    ledger.read(path, public_key=PUBLIC)
  with pytest.raises(ledger.LedgerError, match="line 4 is not the head"):
    ledger.read(path, head=head)
  before = path.read_bytes()
  with pytest.raises(ledger.LedgerError, match="line 1 was signed by"):
    ledger.append(path, **line(4))
  assert path.read_bytes() == before


def test_all_lines_have_one_signer(path):
  """The first lines are kept, the rest made anew with another key."""
  old = path.read_bytes().splitlines(keepends=True)
  written_anew(path, OTHER)
  fresh = ledger.read(path)
  fields = fresh[2]._asdict() | {"previous": json.loads(old[1])["hash"]}
  fields["hash"] = digest(fields)
  fields["signature"] = signing.sign(OTHER, fields["hash"].encode())
  path.write_bytes(b"".join(old[:2]) + json.dumps(fields).encode() + b"\n")
  for public_key in (None, PUBLIC):
    with pytest.raises(ledger.LedgerError, match="line 3 was signed by"):
      ledger.read(path, public_key=public_key)


@pytest.mark.parametrize("distance", [1e-12, 1e-3, 0.1])
@pytest.mark.parametrize("factor", [1.001, 1 / 1.001, 0.0])
def test_a_forged_distance_is_found(tmp_path, distance, factor):
  """However small; the account beside it is that of the true one."""
  path = tmp_path / "ledger.jsonl"
  first = ledger.append(path, **line(0, distance=distance))
  forged = {"distance": distance * factor, "spent": first.spent}
  content = path.read_bytes()
  written_anew(path, at=0, left=first.left, **forged)
  with pytest.raises(ledger.LedgerError, match=r"line 1 .* its signature is"):
    ledger.read(path)
  path.write_bytes(content)
  written_anew(path, OTHER, at=0, left=first.left, **forged)
  message = "spent is" if factor else r"distance is 0\.0; it must be above 0"
  with pytest.raises(ledger.LedgerError, match=f"line 1.*{message}"):
    ledger.read(path)


def test_a_small_distance_after_large_ones_is_found(path):
  entry = ledger.append(path, **line(4, distance=2e-5))
  written_anew(
    path, KEY, at=4, distance=2.002e-5, spent=entry.spent, left=entry.left
  )
  with pytest.raises(ledger.LedgerError, match="line 5: spent is"):
    ledger.read(path)


@pytest.mark.parametrize("part", [0.1, 0.9, 0.999999, 1.0])
def test_what_is_left_may_differ_as_much_as_rounding(tmp_path, part):
  """By `mu` of the whole budget, that another machine rounds differently."""
  path = tmp_path / "ledger.jsonl"
  whole = accountant.Account(1.0, 1e-5).left
  first = ledger.append(path, **line(0, distance=part * whole))
  for error, fits in ((1e-11, True), (1e-8, False)):
    square = (whole * (1 + error)) ** 2 - first.spent**2
    written_anew(path, KEY, at=0, left=math.sqrt(square))
    if fits:
      ledger.read(path)
    else:
      with pytest.raises(ledger.LedgerError, match="line 1: left is"):
        ledger.read(path)


def test_lines_cut_off_are_found_by_the_head(path):
  head = ledger.read(path)[-1].hash
  rewrite(path, lambda lines: lines[:3])
  ledger.read(path)  # nothing in the file tells
  with pytest.raises(ledger.LedgerError, match="line 3 is not the head"):
    ledger.read(path, head=head)


def test_a_release_beyond_the_budget_is_not_entered(path):
  before = path.read_bytes()
  with pytest.raises(accountant.BudgetError, match="retrain now"):
    ledger.append(path, **line(4, distance=0.5))
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"distance": 0}, "distance is 0; it must be above 0: every release is"),
    ({"distance": 0.0}, r"distance is 0\.0; it must be above 0"),
    ({"distance": -0.1}, r"distance is -0\.1"),
    ({"sigma": 0.0}, r"sigma is 0\.0"),
    ({"certificate": None}, "certificate is None; it must be a str"),
    ({"request": "request 2"}, "request is 'request 2'"),
    ({"epsilon": 2.0}, r"the budget is epsilon 2\.0"),
  ],
)
def test_bad_input_is_not_entered(path, changes, message):
  before = path.read_bytes()
  with pytest.raises(ValueError, match=message):
    ledger.append(path, **line(4, **changes))
  assert path.read_bytes() == before


def test_one_release_may_spend_everything(tmp_path):
  for k, distance in enumerate((0.3, 1e-3, 7.0, 0.123)):
    path = tmp_path / f"{k}.jsonl"
    sigma = calibrate.gaussian_sigma(1.0, 1e-5, 1.0) * distance
    ledger.append(path, **line(0, distance=distance, sigma=sigma))
    assert ledger.read(path)[0].left < 1e-4


def test_nothing_is_appended_to_a_damaged_ledger(path):
  rewrite(path, lambda lines: lines[1:])
  before = path.read_bytes()
  with pytest.raises(ledger.LedgerError):
    ledger.append(path, **line(4))
  assert path.read_bytes() == before


def test_a_kill_while_writing_leaves_the_old_ledger(path, monkeypatch):
  before = path.read_bytes()

  def killed(self, target):
    raise KeyboardInterrupt

  monkeypatch.setattr(type(path), "replace", killed)
  with pytest.raises(KeyboardInterrupt):
    ledger.append(path, **line(4))
  assert path.read_bytes() == before
  monkeypatch.undo()
  assert ledger.append(path, **line(4)).index == 4


def slowly(path, content):
  """`files.replace`, so that writers meet."""
  time.sleep(0.1)
  path.write_bytes(content)


def test_threads_do_not_spend_the_same_budget(path, monkeypatch):
  """Of eight releases two fit."""
  monkeypatch.setattr(ledger.files, "replace", slowly)
  distance = ledger.read(path)[-1].left / math.sqrt(2.5)

  def release(k):
    changes = {"request": f"thread {k}", "distance": distance}
    return ledger.append(path, **line(4, **changes)).index

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    results = [pool.submit(release, k) for k in range(8)]
  made = [each.result() for each in results if not each.exception()]
  refused = [each.exception() for each in results if each.exception()]
  assert sorted(made) == [4, 5] and len(ledger.read(path)) == 6
  assert {type(each) for each in refused} == {accountant.BudgetError}


PROCESS = """
import sys, time
from junlearn.certify import ledger, signing
name, path = sys.argv[1:]
replace = ledger.files.replace
ledger.files.replace = lambda *arguments: (time.sleep(0.1), replace(*arguments))
print(flush=True)
key = signing.load_key(sys.stdin.buffer.read())
for k in range(5):
  ledger.append(
    path, key=key, request=f"{name} {k}", records=(), params_before="",
    params_after="", epsilon=1.0, delta=1e-5, distance=1e-3, sigma=1.0,
    certificate="",
  )
"""


def test_processes_write_one_after_the_other(tmp_path):
  path, pem = tmp_path / "new" / "ledger.jsonl", signing.new_key()
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
  with contextlib.ExitStack() as stack:
    writers = [
      stack.enter_context(
        subprocess.Popen([sys.executable, "-c", PROCESS, name, path], **pipes)
      )
      for name in "ab"
    ]
    for writer in writers:
      assert writer.stdout.readline()  # both have started
    for writer in writers:
      writer.stdin.write(pem)
      writer.stdin.close()
  assert [writer.returncode for writer in writers] == [0, 0]
  found = [entry.request for entry in ledger.read(path)]
  assert sorted(found) == [f"{name} {k}" for name in "ab" for k in range(5)]


def test_no_entries_have_no_budget():
  with pytest.raises(ValueError, match="entries is empty"):
    ledger.account(())
