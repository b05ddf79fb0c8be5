"""TOFU's metrics: truth ratio, forget quality and model utility.

    R = exp( mean_j -lbar(wrong_j) ) / exp( -lbar(right) ),     wrong over right

with lbar the mean NLL of an answer (`memory.mean_nll`), the right answer being
the paraphrase on forget and retain sets, the original one elsewhere. R spans
hundreds of orders of magnitude where a model has collapsed, so everything here
takes log R. Released codes add 1e-10 to the denominator instead, which moves R
where the right answer has p_norm of that size.

Sources: TOFU (arXiv 2401.06121), OpenUnlearning (arXiv 2506.12618).
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from junlearn import validate
from junlearn.audit import utility

Form = Literal["geometric", "arithmetic", "inverse"]


class ForgetQuality(NamedTuple):
  """A p-value and its decimal logarithm, which is -inf where it underflows."""

  pvalue: float
  log10: float


def normalized_probability(right: ArrayLike, wrong: ArrayLike) -> np.ndarray:
  """p(right) / ( p(right) + sum_j p(wrong_j) ), with p_norm as p; `[n]`.

  Args:
    right: mean NLL of the right answers `[n]`.
    wrong: mean NLL of `k` wrong answers to each `[n, k]`.
  """
  nll = np.column_stack(_answers(right, wrong))
  return special.softmax(-nll, axis=1)[:, 0]


def log_truth_ratio(
  right: ArrayLike, wrong: ArrayLike, *, form: Form = "geometric"
) -> np.ndarray:
  """Log R of each example `[n]`, in nats; below 0 the truth is likelier.

  Args:
    right: mean NLL of the right answers `[n]`.
    wrong: mean NLL of `k` wrong answers to each `[n, k]`.
    form: TOFU's code has three: "geometric", R as above; "arithmetic", with
      the mean of the wrong answers' p_norm; "inverse", 1 over the geometric R.
      The forget quality is the same for the first and the last only.

  Raises:
    ValueError: if the shapes do not fit or the form is unknown.
  """
  validate.one_of(get_args(Form), form=form)
  nll, others = _answers(right, wrong)
  if form == "arithmetic":
    count = np.log(others.shape[1])
    return special.logsumexp(-others, axis=1) - count + nll
  log_ratio = nll - np.mean(others, axis=1)
  return -log_ratio if form == "inverse" else log_ratio


def forget_truth(log_ratio: ArrayLike) -> float:
  """Mean of min(R, 1/R), for a forget set; 1 where truth does not stand out."""
  return float(np.mean(np.exp(-np.abs(log_ratio))))


def utility_truth(log_ratio: ArrayLike) -> float:
  """Mean of max(0, 1 - R), of the other sets; 1 where truth alone is likely."""
  return float(np.mean(-np.expm1(np.minimum(log_ratio, 0))))


def truth_share(log_ratio: ArrayLike) -> float:
  """Mean of right / (right + wrong) = 1 / (1 + R), what is still known.

  Source: the meta-evaluation of OpenUnlearning.
  """
  return float(np.mean(special.expit(-np.asarray(log_ratio))))


def forget_quality(log_ratio: ArrayLike, retrained: ArrayLike) -> ForgetQuality:
  """p-value of the KS test between truth ratios and the retrained model's.

  Large where the two cannot be told apart. n examples cannot give less than
  2 / C(2n, n). Read it beside that of a second retrained model.

  Args:
    log_ratio: of the model on the forget set `[n]`.
    retrained: of the retrained model.
  """
  pvalue = utility.ks_pvalue(log_ratio, retrained)
  return ForgetQuality(pvalue, float(np.log10(pvalue)) if pvalue else -np.inf)


def model_utility(values: Iterable[float]) -> float:
  """Harmonic mean of what a model should keep; any 0 makes it 0.

  TOFU's nine are the probability (normalized on the last two sets), the ROUGE-L
  recall and `utility_truth` of the retain set, real authors and world facts.

  Raises:
    ValueError: if there is no value, or one is negative or not finite.
  """
  values = np.array(list(values), np.float64)
  if not values.size or not np.all(np.isfinite(values) & (values >= 0)):
    raise ValueError(
      f"values is {values.tolist()}; it must hold finite numbers of at least 0."
    )
  return float(values.size / np.sum(1 / values)) if values.all() else 0.0


def forgetting(
  *, extraction: float, exact: float, paraphrased: float, truth: float
) -> float:
  """OpenUnlearning's "Mem", the harmonic mean of 1 less each: 1 = all is gone.

  It has no retrained model in it, so that ruining the model is rewarded.

  Args:
    extraction: mean extraction strength.
    exact: mean exact memorization.
    paraphrased: mean probability of the paraphrased answers.
    truth: `truth_share`.
  """
  return model_utility(
    1 - value for value in (extraction, exact, paraphrased, truth)
  )


def _answers(right, wrong):
  right, wrong = (np.asarray(x, np.float64) for x in (right, wrong))
  if not wrong.size or wrong.shape[:-1] != right.shape or right.ndim != 1:
    raise ValueError(
      f"right has shape {right.shape} and wrong {wrong.shape}; they must be "
      "[n] and [n, k] with n and k at least 1."
    )
  return right, wrong
