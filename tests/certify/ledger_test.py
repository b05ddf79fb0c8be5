import json

import pytest

from junlearn.certify import accountant, calibrate, ledger

HASHES = [f"{k:064x}" for k in range(10)]


def line(k, **changes):
  return {
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


def test_what_was_appended_is_read(path):
  entries = ledger.read(path)
  assert [entry.index for entry in entries] == [0, 1, 2, 3]
  for k, entry in enumerate(entries):
    written = line(k)
    assert {name: getattr(entry, name) for name in written} == written
  head = entries[-1].hash
  assert ledger.read(path, head=head) == entries
  assert ledger.append(path, **line(4, certificate=None)).previous == head


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
  """With a hash of its own that agrees."""

  def anew(lines):
    entry = ledger.Entry(**json.loads(lines[1]))
    entry = entry._replace(records=tuple(entry.records), request="another")
    fresh = path.with_name("fresh")
    fresh.write_bytes(lines[0])
    names = line(0)
    ledger.append(fresh, **{name: getattr(entry, name) for name in names})
    return [*fresh.read_bytes().splitlines(keepends=True), *lines[2:]]

  rewrite(path, anew)
  with pytest.raises(ledger.LedgerError, match="line 3 does not follow"):
    ledger.read(path)


def test_a_wrong_account_is_found(tmp_path, monkeypatch):
  path = tmp_path / "ledger.jsonl"
  with monkeypatch.context() as patch:
    patch.setattr(accountant.Account, "spent", property(lambda self: 0.0))
    ledger.append(path, **line(0))
  with pytest.raises(ledger.LedgerError, match=r"line 1: spent is 0\.0"):
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
  retrained = ledger.append(path, **line(4, distance=0.0, certificate=None))
  assert retrained.spent == ledger.read(path)[3].spent


def test_one_release_may_spend_everything(tmp_path):
  for k, distance in enumerate((0.3, 1e-3, 7.0, 0.123)):
    path = tmp_path / f"{k}.jsonl"
    sigma = calibrate.gaussian_sigma(1.0, 1e-5, 1.0) * distance
    ledger.append(path, **line(0, distance=distance, sigma=sigma))
    assert ledger.read(path)[0].left < 1e-4


def test_a_request_is_entered_once(path):
  with pytest.raises(ValueError, match="request is 'request 2'"):
    ledger.append(path, **line(4, request="request 2"))


def test_the_budget_stays(path):
  with pytest.raises(ValueError, match=r"the budget is epsilon 2\.0"):
    ledger.append(path, **line(4, epsilon=2.0))


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


def test_no_entries_have_no_budget():
  with pytest.raises(ValueError, match="entries is empty"):
    ledger.account(())
