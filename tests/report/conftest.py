"""An invented run: 7 methods x 3 seeds, 10 % of a classifier's records."""

import numpy as np
import pytest

from junlearn import report

METRICS = (
  report.Metric(
    "forget_accuracy",
    "Forget accuracy",
    unit="%",
    scale=100,
    help="Fraction of the deleted records that the model still labels rightly.",
    forgetting=-1,
  ),
  report.Metric(
    "retain_accuracy",
    "Retain accuracy",
    unit="%",
    scale=100,
    help="The same for the training records that were kept.",
  ),
  report.Metric(
    "test_accuracy",
    "Test accuracy",
    unit="%",
    scale=100,
    help="The same for records that no model was trained on.",
  ),
  report.Metric(
    "attack_auc",
    "Attack AUC",
    help="How well an attacker ranks deleted records above unseen ones.",
    forgetting=-1,
    chance=0.5,
  ),
  report.Metric(
    "weight_distance",
    "Weight distance",
    help="Distance from the original weights; informative only.",
    compare=False,
  ),
)

# forget, retain, test accuracy, attack AUC, weight distance, seconds
CENTRES = {
  "original": (0.999, 0.999, 0.941, 0.612, 0.0, 0.0),
  "finetune": (0.991, 0.998, 0.938, 0.589, 2.1, 11.0),
  "gradient_ascent": (0.883, 0.951, 0.893, 0.461, 0.9, 1.4),
  "random_label": (0.921, 0.986, 0.925, 0.448, 1.7, 5.2),
  "salun": (0.946, 0.994, 0.934, 0.533, 1.5, 6.8),
  "amun": (0.943, 0.993, 0.937, 0.507, 1.2, 4.9),
  "newton": (0.961, 0.982, 0.930, 0.541, 0.6, 2.7),
  "sparse_distillation": (0.952, 0.991, 0.931, 0.528, 3.4, 14.0),
  "retrain": (0.939, 0.998, 0.938, 0.502, 9.8, 118.0),
}


def example_rows(seeds=3):
  rng = np.random.default_rng(0)
  rows = []
  for method, (*centres, seconds) in CENTRES.items():
    for seed in range(seeds):
      noise = rng.normal(size=5) * (0.004, 0.002, 0.003, 0.006, 0.1)
      values = np.clip(np.add(centres, noise), 0, (1, 1, 1, 1, 99))
      names = [metric.name for metric in METRICS]
      work = {"retrain": "retrain"}.get(method, "unlearn")
      rows.append(
        {
          "method": method,
          "seed": seed,
          "metrics": dict(zip(names, map(float, values), strict=True)),
          "seconds": {
            work: seconds * (1 + 0.03 * rng.normal()),
            "audit": 4.2 + 0.1 * rng.normal(),
            "compile": 6.0 + rng.normal(),
          },
          "peak_memory_bytes": int(7.5e8 + 2e7 * seconds),
          "params_sha256": "0" * 64,
        }
      )
  return rows


def _roc(label, auc, rng):
  shift = 2.0 * (auc - 0.5) * 1.8
  cuts = np.sort(rng.normal(size=2000))[::-1]
  members = np.sort(rng.normal(shift, 1.0 + shift / 4, size=2000))[::-1]
  rates = np.arange(1, 2001) / 2000
  tpr = np.searchsorted(-members, -cuts, "right") / 2000
  return report.Roc(label, [0, *rates], [0, *tpr])


def example_figures():
  rng = np.random.default_rng(1)
  curves = [_roc(m, c[3], rng) for m, c in CENTRES.items()]
  samples = [
    report.Values(m, rng.beta(18 * c[0] ** 12 + 1.5, 1.2, size=600))
    for m, c in CENTRES.items()
  ]
  steps = np.arange(0, 201, 10)
  courses = [
    report.Curve(
      m,
      steps,
      c[0] + (0.999 - c[0]) * np.exp(-steps / 40),
      c[1] + (0.999 - c[1]) * np.exp(-steps / 70),
    )
    for m, c in CENTRES.items()
    if m not in ("original", "retrain")
  ]
  courses.append(report.Curve("retrain", [0], [0.939], [0.998]))
  return [
    report.roc(
      curves,
      caption="Likelihood-ratio attack on deleted against unseen records, "
      "seed 0. Closest to retraining's curve is best, below it is not better.",
    ),
    report.distributions(
      samples,
      x_label="Confidence in the true class",
      caption="Seed 0.",
    ),
    report.trajectories(
      courses, caption="Seed 0. The level is the retrained model."
    ),
  ]


@pytest.fixture
def example():
  """Arguments of `report.write`."""
  return {
    "title": "Unlearning 10 % of CIFAR-10 from a ResNet-18",
    "request": report.Deletion(
      ids=range(7, 50000, 10),
      total=50000,
      selection="Every tenth record, from the eighth on.",
    ),
    "metrics": METRICS,
    "rows": example_rows(),
    "figures": example_figures(),
    "not_proven": [
      "That no other attack would find the deleted records.",
      "Anything about records, data sets or models other than these.",
      "That a method with the sign = has reached retraining.",
    ],
    "config": {
      "command": "python -m experiments.classification --workdir=runs/cifar10 "
      "--flagfile=experiments/presets/cifar10.flags --seeds=3",
      "commit": "5559fb7",
      "device": "NVIDIA H100 x 1",
      "versions": {"python": "3.11.2", "jax": "0.10.2", "flax": "0.12.0"},
      "seeds": [0, 1, 2],
    },
  }
