"""Claims of AMUN: what is run, and the numbers worked out by hand."""

from experiments.claims.amun import comparison, locality
from experiments.claims.amun.comparison import Found
from experiments.classification.recipe import Recipe
from experiments.classification.study import Study
from experiments.run.claim import Claim
from experiments.run.study import Case, Evidence
from tests.experiments.toy_images import toy
from tests.experiments.untrained import Untrained


def test_every_phase_is_run_once_and_counted(monkeypatch):
  monkeypatch.setattr(comparison, "_RATES", (0.01, 0.1))
  study = Study(toy(), Recipe("mlp", epochs=2, unlearn_epochs=3, references=4))
  study.session = Untrained()
  found = comparison.compare(study, 2)
  locality.claims(study, found)
  names = study.session.names
  assert len(set(names)) == len(names)
  total = comparison.steps(study, 2) + locality.steps(study, 2)
  assert study.session.steps == total
  without = {name for name in names if "/without D_r/" in name}
  assert not any("finetune" in name for name in without)
  assert found.unlearned.keys() == {"with D_r", "without D_r"}


def evidence(gap, *, auc=0.5, confidence=0.5, ks=0.1):
  return Evidence(
    {
      "average_gap": gap,
      "rmia_auc": auc,
      "forget_confidence": confidence,
      "confidence_ks_test": ks,
    }
  )


def measured(amun, **others):
  """The claims of two seeds alike, by number."""
  original = evidence(0.2, auc=0.7, confidence=0.9, ks=0.4)
  case = Case(None, 0, None, None, evidence(0.0))
  rivals = {
    "finetune": evidence(0.05),
    "random_label": evidence(0.06),
    "ascent": evidence(0.07),
    **others,
  }
  unlearned = {
    "with D_r": {n: [e] * 2 for n, e in {"amun": amun, **rivals}.items()},
    "without D_r": {
      "amun": [evidence(0.04)] * 2,
      "random_label": [evidence(0.1)] * 2,
      "ascent": [evidence(0.2)] * 2,
    },
  }
  found = Found([case] * 2, [original] * 2, {}, unlearned)
  return {n: Claim("", n, "", *rest) for n, *rest in comparison.claims(found)}


def test_margins_are_the_rivals_gaps_less_amuns():
  claims = measured(evidence(0.03))
  values = {n: round(claims[n].measured, 9) for n in claims if n[0] == "5"}
  assert values == {"5a": 2, "5b": 3, "5c": 4, "5d": 6 - 3, "5e": 16 - 4}
  assert all(claim.passed for claim in claims.values())


def test_each_can_fail():
  claims = measured(evidence(0.065, auc=0.6, confidence=0.95, ks=0.3))
  failing = {n for n, claim in claims.items() if not claim.passed}
  assert failing == {"3a", "3b", "4b", "5a", "5b"}
