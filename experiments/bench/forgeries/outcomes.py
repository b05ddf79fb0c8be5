"""What came of edits, what of it is known, and the table of all."""

import collections
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from experiments.bench.forgeries.edits import EDITS
from experiments.run import tables

FORGERS = ("edits", "hashes", "signs")

# What may go unnoticed, as a pattern of "forger, edit, where", and why.
_KNOWN = {
  r"signs, .*, certificate: versions.*": "a certificate's versions are told, "
  "not promised",
  r"signs, .*, config: (versions|device|commit|command).*": "what a "
  "configuration tells beside its flags is not read",
  r"signs, .*, config: flags\.(workdir|data_dir|manual_dir|cache_dir|debug"
  r"|checkpoint_seconds|process_id|num_processes|coordinator_address"
  r"|multiprocess)": "where and how a run was made has no part in what it "
  "promises",
  r"signs, .*, config: flags\.(rounds|finetune_rounds)": "retraining ends by "
  "the tolerance, not by rounds",
  r"signs, .*, config: flags\.edge_probability": "read for another graph alone",
  r"signs, .*, config: flags\.num_test": "test records have no part in a "
  "release",
  r"signs, a field deleted, config: flags\.\w+": "a flag that is left out has "
  "its default, with which all agrees",
  r".*, (a bit flipped|a file removed), checkpoint: .*": "params are read with "
  "their hash and are the same; else it is a phase's notes, or its copy of "
  "what is read below `releases`",
  r".*, files exchanged, checkpoint: \S*(-released|/finetune) and "
  r"\S*(-released|/finetune)": "neither is read",
  r".*, files exchanged, checkpoint: \S*/(finetune|retrain) and "
  r"\S*/(finetune|retrain)": "retrained params are a second opinion, on which "
  "nothing that is promised rests",
  r"signs, a released number moved, by (1e-06|1) sigma": "as likely a noise as "
  "the one before",
  r"signs, a bit flipped, params": "a multiple of the grid within the noise",
  r"signs, files exchanged, params.safetensors": "the models of two requests "
  "are nearer than 6 sigma, below which one release shows no shift",
  r".*, (private/signing_key.pem|signing key)": "the key need not lie there, "
  "and can be written in more than one way",
}


class Outcome(NamedTuple):
  """What came of one edit.

  Attributes:
    edit: a key of `EDITS`.
    where: what of the folder it changed.
    forger: one of `FORGERS`.
    kind: "noticed", "refused" (the folder could not be read), "unnoticed" or
      "crashed".
    why: the first sentence of the verifier, or the error.
  """

  edit: str
  where: str
  forger: str
  kind: str
  why: str

  @property
  def is_wrong(self) -> bool:
    """Whether the verifier crashed, or overlooked what it must notice."""
    unexplained = self.kind == "unnoticed" and self.reason is None
    return unexplained or self.kind == "crashed"

  @property
  def reason(self) -> str | None:
    """Why it may go unnoticed, if that is known."""
    told = f"{self.forger}, {self.edit}, {self.where}"
    for pattern, reason in _KNOWN.items():
      if re.fullmatch(pattern, told):
        return reason
    return None


def lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
  """Markdown: the table, what went unnoticed and why."""
  kinds = ("noticed", "refused", "unnoticed", "crashed")
  yield from tables.header(["edit", "forger", "tried", *kinds])
  for edit in (*EDITS, "all"):
    for forger in FORGERS:
      found = [
        o for o in outcomes if o.forger == forger and edit in (o.edit, "all")
      ]
      counts = collections.Counter(o.kind for o in found)
      numbers = [len(found), *(counts[kind] for kind in kinds)]
      yield tables.row([edit, forger, *numbers])
  unnoticed = collections.Counter(
    (o.reason or f"**not explained**: {o.edit}, {o.where}", o.forger)
    for o in outcomes
    if o.kind == "unnoticed"
  )
  yield from ("", "Unnoticed:", "")
  for (reason, forger), count in sorted(unnoticed.items()):
    yield f"- {count} by who {forger}: {reason}."
  for o in outcomes:
    if o.kind == "crashed":
      yield f"- **crashed**: {o.edit}, {o.where}: {o.why}."
