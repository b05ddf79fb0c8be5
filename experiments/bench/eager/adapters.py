"""Training of adapters with transformers and peft, on a GPU if there is one."""

from collections.abc import Callable, Sequence

import numpy as np
import peft
import torch
import transformers

from junlearn.nn.text.transformer import Config


def run(
  config: Config,
  tokens: np.ndarray,
  modules: Sequence[str],
  *,
  rank: int,
  steps: int,
  learning_rate: float,
) -> Callable[[], None]:
  """Steps of Adam on the cross-entropy of tokens `[n, length]`.

  Args:
    config: shape of a Llama without scaled wavelengths.
    tokens: of the one batch.
    modules: names of the dense layers that get adapters.
    rank: of the adapters.
    steps: of one call.
    learning_rate: of Adam.

  Returns:
    A function that takes the steps and waits for them.
  """
  device = "cuda" if torch.cuda.is_available() else "cpu"
  net = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=config.vocab_size,
      hidden_size=config.hidden_size,
      intermediate_size=config.intermediate_size,
      num_hidden_layers=config.num_layers,
      num_attention_heads=config.num_heads,
      num_key_value_heads=config.num_kv_heads,
      head_dim=config.size_of_head,
      max_position_embeddings=config.max_length,
      tie_word_embeddings=config.tie_embeddings,
      use_cache=False,
      attn_implementation="sdpa",
    )
  ).to(device, getattr(torch, config.dtype))
  net = peft.get_peft_model(
    net,
    peft.LoraConfig(
      r=rank,
      lora_alpha=2 * rank,
      target_modules=list(modules),
      task_type="CAUSAL_LM",
    ),
  ).train()
  free = [p for p in net.parameters() if p.requires_grad]
  optimizer = torch.optim.Adam(free, learning_rate, fused=True)
  batch = torch.from_numpy(tokens.astype(np.int64)).to(device)

  def work():
    for _ in range(steps):
      optimizer.zero_grad(set_to_none=True)
      net(input_ids=batch, labels=batch).loss.backward()
      optimizer.step()
    if device == "cuda":
      torch.cuda.synchronize()

  return work
