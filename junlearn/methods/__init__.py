"""Unlearning methods: one module a paper or baseline.

Each module exposes a factory `transform` that returns a
`junlearn.transform.Transform`: `transform(model, optimizer, *, num_steps,
batch_size, ...)` where the method descends, `transform(model, ...)` where it
takes one step.
"""

from junlearn.methods import amun as amun
from junlearn.methods import ascent as ascent
from junlearn.methods import decentralized_newton as decentralized_newton
from junlearn.methods import dpo as dpo
from junlearn.methods import ferrari as ferrari
from junlearn.methods import finetune as finetune
from junlearn.methods import fisher_forget as fisher_forget
from junlearn.methods import grad_difference as grad_difference
from junlearn.methods import idk as idk
from junlearn.methods import influence as influence
from junlearn.methods import kl_min as kl_min
from junlearn.methods import lune as lune
from junlearn.methods import newton as newton
from junlearn.methods import npo as npo
from junlearn.methods import random_label as random_label
from junlearn.methods import retrain as retrain
from junlearn.methods import rmu as rmu
from junlearn.methods import simnpo as simnpo
from junlearn.methods import task_vector as task_vector
from junlearn.methods import undial as undial
from junlearn.methods import weighted_ascent as weighted_ascent
from junlearn.methods.card import Card as Card


def cards() -> dict[str, Card]:
  """The card of each method, by the name of its module."""
  named = sorted(globals().items())
  return {name: it.CARD for name, it in named if hasattr(it, "CARD")}
