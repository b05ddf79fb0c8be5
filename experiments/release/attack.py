"""How well a score tells forgotten from other records."""

import numpy as np
from sklearn import metrics


def auc(forget: np.ndarray, test: np.ndarray) -> float:
  """Fraction of pairs of a forgotten and a test record that a score orders."""
  truth = np.repeat([1, 0], [len(forget), len(test)])
  return float(metrics.roc_auc_score(truth, np.concatenate([forget, test])))
