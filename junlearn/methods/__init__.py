"""Unlearning methods: one module a paper or baseline.

Each module exposes a factory `transform` that returns a
`junlearn.transform.Transform`: `transform(model, optimizer, *, num_steps,
batch_size, ...)` where the method descends, `transform(model, ...)` where it
takes one step.
"""

from junlearn.methods import amun as amun
from junlearn.methods import ascent as ascent
from junlearn.methods import decentralized_newton as decentralized_newton
from junlearn.methods import ferrari as ferrari
from junlearn.methods import finetune as finetune
from junlearn.methods import fisher_forget as fisher_forget
from junlearn.methods import grad_difference as grad_difference
from junlearn.methods import influence as influence
from junlearn.methods import newton as newton
from junlearn.methods import random_label as random_label
from junlearn.methods import retrain as retrain
