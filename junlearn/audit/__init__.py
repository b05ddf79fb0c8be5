"""Evidence: utility, attacks and the distance to retraining.

Attacks and statistics run on the host on stored outputs; only `predict`,
`population`, `generation`, `language.scores.collect` and the sensitivities run
models.
"""

from junlearn.audit import gap as gap
from junlearn.audit import generation as generation
from junlearn.audit import language as language
from junlearn.audit import membership as membership
from junlearn.audit import population as population
from junlearn.audit import predict as predict
from junlearn.audit import rmia as rmia
from junlearn.audit import sensitivity as sensitivity
from junlearn.audit import signals as signals
from junlearn.audit import utility as utility
