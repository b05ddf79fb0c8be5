"""What the library's signatures mean by a pytree.

None of these is a class of its own: a model's author chooses the structure, and
the functions that read a part of it say which.
"""

from typing import Any, TypeAlias

import jax

PyTree: TypeAlias = Any
"""Any nesting of dicts, lists and tuples whose leaves are arrays."""

Key: TypeAlias = jax.Array
"""A key of `jax.random`, `jax.random.key(seed)`: everything random is drawn
from one, and the same key draws the same."""

Params: TypeAlias = Any
"""The parameters of a model, a pytree of arrays: weights and, beside them,
state such as batch statistics (see `model.Model`)."""

Examples: TypeAlias = Any
"""Examples, a pytree of arrays `[n, ...]` with one example a row of axis 0; in
the library's own data sets a dict with `input`, `label`, `id` and, where
examples may be absent, `weight` (see `transform.Request`)."""

Vector: TypeAlias = Any
"""A pytree of the structure and shapes of what is free, as a vector: a
gradient, a direction, a right side of a linear system."""

Batch: TypeAlias = Any
"""Some rows of examples, of the same structure."""

Inputs: TypeAlias = Any
"""What a model reads of examples, `examples["input"]`: arrays `[n, ...]`."""

Outputs: TypeAlias = Any
"""What a model says of inputs, arrays `[n, ...]`; logits, of classifiers."""

Info: TypeAlias = Any
"""Diagnostics of a step or a stage, a pytree of arrays; never read on."""
