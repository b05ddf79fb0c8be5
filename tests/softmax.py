"""Softmax regression written out in NumPy: gradients and Hessians, dense.

Params are flat `[features * classes]`, the score of class k being
`sum_f x_f theta_fk`; a bias is the weight of a feature that is 1.
"""

import numpy as np


def probabilities(theta, x):
  """`[n, classes]`."""
  score = x @ theta.reshape(x.shape[1], -1)
  p = np.exp(score - score.max(1, keepdims=True))
  return p / p.sum(1, keepdims=True)


def each_gradient(theta, x, y):
  """Of the loss of every example, `[n, params]`."""
  p = probabilities(theta, x)
  p[np.arange(len(y)), y] -= 1
  return (x[:, :, None] * p[:, None, :]).reshape(len(x), -1)


def gradient(theta, x, y, weight, l2, scale=1.0):
  """Of `scale * weighted mean loss + l2 / 2 |theta|^2`."""
  mean = weight @ each_gradient(theta, x, y) / max(weight.sum(), 1)
  return scale * mean + l2 * theta


def hessian(theta, x, weight, l2, scale=1.0):
  """Of the same; it does not depend on the labels."""
  p = probabilities(theta, x)
  of_scores = p[:, :, None] * (np.eye(p.shape[1]) - p[:, None, :])
  total = np.einsum("n,nf,ng,nkl->fkgl", weight, x, x, of_scores)
  mean = total.reshape(len(theta), -1) / max(weight.sum(), 1)
  return scale * mean + l2 * np.eye(len(theta))


def minimum(slope, curvature, start):
  """Where a gradient is 0, by Newton's method on dense matrices."""
  for _ in range(50):
    step = np.linalg.solve(curvature(start), slope(start))
    start = start - step
    if np.linalg.norm(step) < 1e-14 * (1 + np.linalg.norm(start)):
      return start
  raise AssertionError("no minimum was reached")
