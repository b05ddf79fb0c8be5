"""Metrics of models of text, NumPy functions of stored token scores."""

from junlearn.audit.language import memory as memory
from junlearn.audit.language import scores as scores
