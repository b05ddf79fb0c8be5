"""How the params of `transformer` are divided, for `sharding.Layout`.

The heads of attention and the width of the feed-forward layers are divided over
"tensor", so that a block needs one sum over devices after each of the two; the
residual stream's axis is divided over "fsdp". Adapters follow their layers, but
for their rank.
"""

from jax.sharding import PartitionSpec

_INTO = r"(q_proj|k_proj|v_proj|gate_proj|up_proj|lm_head)"
_OUT = r"(o_proj|down_proj)"

TRANSFORMER = (
  (rf"{_INTO}/kernel$", PartitionSpec("fsdp", "tensor")),
  (rf"{_INTO}/bias$", PartitionSpec("tensor")),
  (rf"{_OUT}/kernel$", PartitionSpec("tensor", "fsdp")),
  (r"embed_tokens/embedding$", PartitionSpec("tensor", "fsdp")),
  (r"norm/scale$", PartitionSpec()),
  (rf"{_INTO}/a$", PartitionSpec("fsdp", None)),
  (rf"{_INTO}/b$", PartitionSpec(None, "tensor")),
  (rf"{_OUT}/a$", PartitionSpec("tensor", None)),
  (rf"{_OUT}/b$", PartitionSpec(None, "fsdp")),
)
