"""Metrics of models of text.

`scores.collect` runs a model once; the metrics are NumPy functions of its
scores, or of the texts that it generates.
"""

from junlearn.audit.text import generation as generation
from junlearn.audit.text import membership as membership
from junlearn.audit.text import memory as memory
from junlearn.audit.text import recall as recall
from junlearn.audit.text import scores as scores
from junlearn.audit.text import truth as truth
