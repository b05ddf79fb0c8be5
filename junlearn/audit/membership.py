"""Membership inference from one model: how well members can be told apart.

`roc` evaluates any score. The three attacks are the population attacks of the
literature; they see the attacked model only and overstate the privacy reached,
so use them beside `rmia`, and read every value beside the retrained model's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn import linear_model, model_selection, svm

from junlearn import validate
from junlearn.audit import signals

# Logits `[n, classes]` and labels `[n]` of a model on a set of examples.
Outputs = tuple[ArrayLike, ArrayLike]

# Oriented so that a larger value speaks for membership.
FEATURES: Mapping[str, Callable[[ArrayLike, ArrayLike], np.ndarray]] = {
  "correctness": signals.correctness,
  "confidence": signals.confidence,
  "entropy": lambda *outputs: -signals.entropy(*outputs),
  "modified_entropy": lambda *outputs: -signals.modified_entropy(*outputs),
  "released_modified_entropy": lambda *outputs: (
    -signals.released_modified_entropy(*outputs)
  ),
}
DEFAULT_FEATURES = ("correctness", "confidence", "entropy", "modified_entropy")

# Entries of the largest array of the bootstrap; bounds its memory.
_BLOCK = 2**20


class Estimate(NamedTuple):
  """A value with its bootstrap confidence interval [low, high]."""

  value: float
  low: float
  high: float


class Roc(NamedTuple):
  """How well scores separate members from non-members.

  Attributes:
    auc: P(member > non-member) + P(equal) / 2; 0.5 = no signal.
    advantage: auc - 0.5, signed. Above 0 the forgotten examples still look like
      members; below 0 they look less like members than unseen ones do, which
      is over-forgetting and betrays them too.
    tpr_at_fpr: largest fraction of members found at a false-positive rate of at
      most `fpr`.
    fpr: that rate.
    num_examples: members, and also non-members, after balancing.
  """

  auc: Estimate
  advantage: Estimate
  tpr_at_fpr: Estimate
  fpr: float
  num_examples: int


def roc(
  member_scores: ArrayLike,
  nonmember_scores: ArrayLike,
  *,
  seed: int,
  fpr: float = 0.01,
  num_resamples: int = 1000,
  level: float = 0.95,
) -> Roc:
  """ROC summary with percentile bootstrap intervals over examples.

  The larger of the two samples is first sub-sampled to the size of the
  smaller; members and non-members are then resampled separately.

  Args:
    member_scores: `[n]`; larger = more like a member. In unlearning the
      "members" are the forgotten examples.
    nonmember_scores: `[m]`, of examples never trained on.
    seed: of NumPy's default generator.
    fpr: false-positive rate, in [0, 1]. It resolves in steps of one
      non-member: with fewer than 1/fpr of them, no false positive is allowed.
    num_resamples: of the bootstrap, at least 1.
    level: of the intervals, in (0, 1).

  Returns:
    The summary. The intervals cover the choice of examples, not training
    seeds, and collapse where the sample is separated perfectly.

  Raises:
    ValueError: if an argument is outside its range.

  Source: percentile bootstrap, Efron (1979); the TPR at low FPR, Carlini et al.
  (arXiv 2112.03570).
  """
  validate.within("[0, 1]", fpr=fpr)
  validate.at_least(1, num_resamples=num_resamples)
  validate.within("(0, 1)", level=level)
  rng = np.random.default_rng(seed)
  members, nonmembers = _balanced(
    rng,
    signals.as_sample("member_scores", member_scores),
    signals.as_sample("nonmember_scores", nonmember_scores),
  )
  n = len(members)
  scores, ranks = np.unique(
    np.concatenate([members, nonmembers]), return_inverse=True
  )

  def statistics(member_ranks, nonmember_ranks):
    members = _histogram(member_ranks, len(scores))
    nonmembers = _histogram(nonmember_ranks, len(scores))
    return np.stack(
      [_auc(members, nonmembers), _tpr_at_fpr(members, nonmembers, fpr)]
    )

  value = statistics(ranks[None, :n], ranks[None, n:])[:, 0]
  # A resample is a row of random ranks, so that many are counted at once.
  rows = max(1, _BLOCK // (2 * n))
  resamples = []
  for start in range(0, num_resamples, rows):
    shape = (min(rows, num_resamples - start), n)
    resamples.append(
      statistics(rng.choice(ranks[:n], shape), rng.choice(ranks[n:], shape))
    )
  low, high = np.quantile(
    np.concatenate(resamples, axis=1), [(1 - level) / 2, (1 + level) / 2], 1
  )
  auc, tpr = (
    Estimate(*map(float, each)) for each in zip(value, low, high, strict=True)
  )
  advantage = Estimate(*(bound - 0.5 for bound in auc))
  return Roc(auc, advantage, tpr, fpr, n)


def auc(member_scores: ArrayLike, nonmember_scores: ArrayLike) -> float:
  """P(member > non-member) + P(equal) / 2 over all pairs, as it is in `roc`.

  Args:
    member_scores: `[n]`; larger = more like a member.
    nonmember_scores: `[m]`.

  Raises:
    ValueError: if a sample is empty, not one-dimensional or not finite.
  """
  members = signals.as_sample("member_scores", member_scores)
  nonmembers = signals.as_sample("nonmember_scores", nonmember_scores)
  scores, ranks = np.unique(
    np.concatenate([members, nonmembers]), return_inverse=True
  )
  split = np.split(ranks[None], [len(members)], axis=1)
  return float(_auc(*(_histogram(each, len(scores)) for each in split))[0])


def threshold_attack(
  forget: Outputs,
  retain: Outputs,
  test: Outputs,
  *,
  features: Sequence[str] = DEFAULT_FEATURES,
) -> dict[str, float]:
  """Song & Mittal's attack: one threshold per class and feature.

      t_c = arg max_t ( TPR_c(t) + TNR_c(t) ) / 2,   member if feature >= t_c

  with the rates of class c on retain (members) and test (non-members). A class
  that either of them lacks takes the threshold of all classes together.

  Args:
    forget: `(logits [n, classes], labels [n])` of the examples to judge.
    retain: the same for known members.
    test: the same for known non-members.
    features: keys of `FEATURES`. Correctness gets a threshold like the others,
      which is the published attack unless test beats retain in a class.

  Returns:
    Efficacy of each feature: the fraction of forget called non-member, in
    [0, 1]. The goal is the retrained model's value, neither 1 nor 0.

  Raises:
    ValueError: if a feature is unknown, or the outputs are malformed.

  Source: arXiv 2003.10595.
  """
  sets = _features(features, forget=forget, retain=retain, test=test)
  forget_labels, retain_labels, test_labels = (
    np.asarray(labels) for _, labels in (forget, retain, test)
  )
  shared = np.intersect1d(retain_labels, test_labels)
  efficacy = {}
  for feature in features:
    members, nonmembers = sets["retain"][feature], sets["test"][feature]
    threshold = np.full(
      len(forget_labels), _best_threshold(members, nonmembers)
    )
    for label in np.intersect1d(shared, forget_labels):
      threshold[forget_labels == label] = _best_threshold(
        members[retain_labels == label], nonmembers[test_labels == label]
      )
    efficacy[feature] = float(np.mean(sets["forget"][feature] < threshold))
  return efficacy


def svc_attack(
  forget: Outputs,
  retain: Outputs,
  test: Outputs,
  *,
  seed: int,
  features: Sequence[str] = DEFAULT_FEATURES,
  max_examples: int = 2000,
) -> dict[str, float]:
  """SVC-MIA, the "MIA" column of Unlearn-Sparse, SalUn and AMUN.

  A support-vector classifier (RBF kernel, C = 3, gamma = 1) on one feature at
  a time tells retain (members) from test (non-members) and judges forget. The
  release takes the first examples of retain; here they are drawn at random,
  and as many of test.

  Args:
    forget: `(logits [n, classes], labels [n])` of the examples to judge.
    retain: the same for known members.
    test: the same for known non-members.
    seed: of NumPy's default generator, for the sub-samples.
    features: keys of `FEATURES`; "released_modified_entropy" is the defective
      form of the released code. The literature reports "confidence".
    max_examples: members, and also non-members, that the classifier is fitted
      on at most, >= 1; its time grows between their square and their cube.

  Returns:
    Efficacy of each feature: the fraction of forget called non-member, in
    [0, 1]. The goal is the retrained model's value, neither 1 nor 0.

  Raises:
    ValueError: if a feature is unknown, or an argument is malformed.

  Source: Jia et al. (arXiv 2304.04934), evaluation/SVC_MIA.py.
  """
  validate.at_least(1, max_examples=max_examples)
  sets = _features(features, forget=forget, retain=retain, test=test)
  num_retain, num_test = np.size(retain[1]), np.size(test[1])
  size = min(num_retain, num_test, max_examples)
  rng = np.random.default_rng(seed)
  members = rng.choice(num_retain, size, replace=False)
  nonmembers = rng.choice(num_test, size, replace=False)
  is_member = np.arange(2 * size) < size
  efficacy = {}
  for feature in features:
    shadow = np.concatenate(
      [sets["retain"][feature][members], sets["test"][feature][nonmembers]]
    )
    # "auto" is one over the number of columns, here 1.
    classifier = svm.SVC(C=3.0, gamma="auto", kernel="rbf")
    classifier.fit(shadow[:, None], is_member)
    called_member = classifier.predict(sets["forget"][feature][:, None])
    efficacy[feature] = float(np.mean(~called_member))
  return efficacy


def logistic_attack(
  forget: Outputs, test: Outputs, *, seed: int, num_splits: int = 10
) -> float:
  """Cross-validated accuracy of telling forget from test by the loss.

  Logistic regression on the cross-entropy, over stratified shuffle splits that
  hold out a tenth; the larger set is first sub-sampled to the smaller's size.

  Args:
    forget: `(logits [n, classes], labels [n])`, n >= 10.
    test: the same for examples never trained on, n >= 10.
    seed: for the sub-sample and the splits, in [0, 2**32).
    num_splits: at least 1.

  Returns:
    Mean accuracy in [0, 1]; ideal 0.5 where forget and test are draws of one
    distribution. It does not know the side: over-forgetting is above 0.5 too.

  Raises:
    ValueError: if a set has fewer than 10 examples, or is malformed.

  Source: starting kit of the NeurIPS 2023 unlearning challenge.
  """
  if num_splits < 1:
    raise ValueError(f"num_splits is {num_splits}; it must be >= 1.")
  losses = []
  for name, outputs in (("forget", forget), ("test", test)):
    loss = signals.loss(*signals.as_logits(*outputs, name))
    if loss.ndim != 1 or len(loss) < 10:
      raise ValueError(
        f"{name} has losses of shape {loss.shape}; it must be [n], n >= 10."
      )
    losses.append(loss)
  forget_loss, test_loss = _balanced(np.random.default_rng(seed), *losses)
  n = len(forget_loss)
  splits = model_selection.StratifiedShuffleSplit(
    n_splits=num_splits, test_size=0.1, random_state=seed
  )
  accuracies = model_selection.cross_val_score(
    linear_model.LogisticRegression(),
    np.concatenate([forget_loss, test_loss])[:, None],
    np.arange(2 * n) < n,
    cv=splits,
  )
  return float(np.mean(accuracies))


def _histogram(ranks, num_ranks):
  """Counts of every rank in every row: `[rows, n] -> [rows, num_ranks]`."""
  rows = len(ranks)
  offsets = np.arange(rows)[:, None] * num_ranks
  counts = np.bincount((ranks + offsets).ravel(), minlength=rows * num_ranks)
  return counts.reshape(rows, num_ranks)


def _auc(members, nonmembers):
  """Mann-Whitney statistic of counts by rank, ties counted 1/2: `[rows]`."""
  below = np.cumsum(nonmembers, axis=1) - nonmembers / 2
  pairs = members.sum(axis=1) * nonmembers.sum(axis=1)
  return np.sum(members * below, axis=1) / pairs


def _tpr_at_fpr(members, nonmembers, fpr):
  """Largest TPR of the thresholds whose FPR is at most `fpr`: `[rows]`."""
  rates = []
  for counts in (members, nonmembers):
    at_or_above = np.cumsum(counts[:, ::-1], axis=1)
    rates.append(at_or_above / at_or_above[:, -1:])
  true_positive, false_positive = rates
  # 0 is the threshold above all scores.
  return np.max(true_positive, axis=1, where=false_positive <= fpr, initial=0)


def _balanced(rng, a, b):
  """Both samples at the size of the smaller, the larger one sub-sampled."""
  size = min(len(a), len(b))
  return tuple(
    x if len(x) == size else rng.choice(x, size, replace=False) for x in (a, b)
  )


def _best_threshold(members, nonmembers):
  """The score t that maximises TPR + TNR of "member if score >= t".

  The lowest of equally good ones; integers make the comparison exact.
  """
  candidates = np.unique(np.concatenate([members, nonmembers]))
  missed = np.searchsorted(np.sort(members), candidates)
  rejected = np.searchsorted(np.sort(nonmembers), candidates)
  gain = rejected * len(members) - missed * len(nonmembers)
  return candidates[np.argmax(gain)]


def _features(features, **sets):
  """The features of every set of outputs: `{set: {feature: [n]}}`."""
  unknown = [feature for feature in features if feature not in FEATURES]
  if unknown or not features:
    raise ValueError(
      f"features is {list(features)}; it must name some of {list(FEATURES)}."
    )
  checked = {
    name: signals.as_logits(logits, labels, f"{name} logits")
    for name, (logits, labels) in sets.items()
  }
  shapes = {name: logits.shape for name, (logits, _) in checked.items()}
  if {len(shape) for shape in shapes.values()} != {2} or (
    len({classes for _, classes in shapes.values()}) > 1
  ):
    raise ValueError(
      f"the logits have shapes {shapes}; each must be [n, classes] with the "
      "same classes."
    )
  return {
    name: {feature: FEATURES[feature](*outputs) for feature in features}
    for name, outputs in checked.items()
  }
