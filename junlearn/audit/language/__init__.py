"""Metrics of models of text.

`scores.collect` runs a model once; the metrics are NumPy functions of its
scores, or of the texts that it generates.
"""

from junlearn.audit.language import membership as membership
from junlearn.audit.language import memory as memory
from junlearn.audit.language import recall as recall
from junlearn.audit.language import scores as scores
from junlearn.audit.language import truth as truth
