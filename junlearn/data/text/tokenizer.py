"""Tokenizers of the `tokenizers` library, with their EOS and padding tokens.

What is read from a folder of Hugging Face's and what is built from texts here
have one form; no tokenizer is implemented in this library.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

PAD, EOS = "<pad>", "<eos>"


class Tokenizer(NamedTuple):
  """A tokenizer and the two tokens that it does not know the role of.

  Attributes:
    encoder: of the library.
    pad: padding token; it is neither attended to nor predicted.
    eos: end-of-sequence token (EOS), which ends an answer.
  """

  encoder: tokenizers.Tokenizer
  pad: int
  eos: int

  @property
  def vocab_size(self) -> int:
    """The largest token plus one."""
    return 1 + max(self.encoder.get_vocab().values())


def load(
  path: str | os.PathLike, *, pad: str | None = None, eos: str | None = None
) -> Tokenizer:
  """Reads a `tokenizer.json`.

  The names of the two tokens are those given here, else those in
  `tokenizer_config.json` or `special_tokens_map.json` beside the file, else
  those of this library. A tokenizer without a padding token, as many are, pads
  with EOS.

  Args:
    path: the file, or a folder that holds it under this name.
    pad: text of the padding token.
    eos: text of EOS.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is no tokenizer, no EOS is found, or a token
      is not in the vocabulary.
  """
  path = pathlib.Path(path)
  file = path / "tokenizer.json" if path.is_dir() else path
  if not file.is_file():
    raise FileNotFoundError(
      f"path is {os.fspath(path)!r}, which neither is nor holds a "
      "tokenizer.json."
    )
  try:
    encoder = tokenizers.Tokenizer.from_file(os.fspath(file))
  except Exception as error:  # the library raises no narrower one
    raise ValueError(f"{file.name} is not a tokenizer: {error}.") from error
  known = encoder.get_vocab()
  eos = (
    eos or _named(file.parent, "eos_token") or (EOS if EOS in known else None)
  )
  if not eos:
    raise ValueError(
      f"path is {os.fspath(path)!r}, where no file names the EOS "
      "token; eos must name it."
    )
  pad = (
    pad or _named(file.parent, "pad_token") or (PAD if PAD in known else eos)
  )
  return _with_ends(encoder, pad, eos)


def save(tokenizer: Tokenizer, folder: str | os.PathLike) -> None:
  """Writes `tokenizer.json` and `tokenizer_config.json`, as `load` reads."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer.encoder.save(os.fspath(folder / "tokenizer.json"))
  name = tokenizer.encoder.id_to_token
  content = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": name(tokenizer.pad),
    "eos_token": name(tokenizer.eos),
  }
  (folder / "tokenizer_config.json").write_text(json.dumps(content, indent=2))


def words(texts: Iterable[str]) -> Tokenizer:
  """One token for each word and punctuation mark of the texts.

  Tokens are in the order of the alphabet, after `<pad>` 0 and `<eos>` 1. A word
  that is not in the texts cannot be encoded. Decoding puts one space between
  words and none before most punctuation.
  """
  split = pre_tokenizers.Whitespace()
  found = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
  vocabulary = [PAD, EOS, *sorted(found)]
  encoder = tokenizers.Tokenizer(
    models.WordLevel({word: i for i, word in enumerate(vocabulary)})
  )
  encoder.pre_tokenizer = split
  encoder.decoder = decoders.WordPiece(cleanup=True)  # "Paris.", not "Paris ."
  encoder.add_special_tokens([PAD, EOS])
  return _with_ends(encoder, PAD, EOS)


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
  """Byte-level BPE of at most `vocab_size` tokens; encodes any text.

  Args:
    texts: to train on.
    vocab_size: at least 258: `<pad>` 0, `<eos>` 1 and the bytes.

  Raises:
    ValueError: if `vocab_size` is smaller.
  """
  if vocab_size < 258:
    raise ValueError(
      f"vocab_size is {vocab_size}; it must be at least 258, for the 256 bytes "
      "and two special tokens."
    )
  encoder = _byte_level(models.BPE())
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[PAD, EOS],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  encoder.train_from_iterator(texts, trainer)
  return _with_ends(encoder, PAD, EOS)


def check(
  tokenizer: Tokenizer, vocab_size: int, *, max_unused: float = 0.05
) -> None:
  """Raises where a tokenizer is not that of a model.

  Args:
    tokenizer: to encode with.
    vocab_size: of the model.
    max_unused: fraction of the model's vocabulary that the tokenizer may leave
      unused, in [0, 1]; many checkpoints are padded to a round number.

  Raises:
    ValueError: if the tokenizer has more tokens than the model, or fewer than
      that allows.
  """
  size = tokenizer.vocab_size
  if not (1 - max_unused) * vocab_size <= size <= vocab_size:
    raise ValueError(
      f"tokenizer has {size} tokens and the model {vocab_size}; they must be "
      f"as many, but the model may leave a fraction of {max_unused:g} unused."
    )


def encode(
  tokenizer: Tokenizer, texts: Sequence[str], *, special: bool = False
) -> list[list[int]]:
  """The tokens of each text.

  Args:
    tokenizer: to encode with.
    texts: any number.
    special: add what the tokenizer itself puts around a text.

  Raises:
    ValueError: if a text has a word that the vocabulary lacks.
  """
  try:
    found = tokenizer.encoder.encode_batch(
      list(texts), add_special_tokens=special
    )
  except Exception as error:  # the library raises no narrower one
    unknown = _unknown(tokenizer.encoder, texts)
    if not unknown:
      raise
    raise ValueError(
      f"texts contain {', '.join(map(repr, unknown))}; every word must be in "
      "the tokenizer's vocabulary."
    ) from error
  return [encoding.ids for encoding in found]


def _with_ends(encoder, pad, eos):
  for argument, name in (("eos", eos), ("pad", pad)):
    if encoder.token_to_id(name) is None:
      raise ValueError(
        f"{argument} is {name!r}; it must be a token of the tokenizer."
      )
  return Tokenizer(encoder, encoder.token_to_id(pad), encoder.token_to_id(eos))


def _named(folder, key):
  """A special token's text according to the files of a folder, or None."""
  for name in ("tokenizer_config.json", "special_tokens_map.json"):
    file = folder / name
    found = json.loads(file.read_text()).get(key) if file.is_file() else None
    if found:
      return found["content"] if isinstance(found, dict) else found
  return None


def _byte_level(model):
  encoder = tokenizers.Tokenizer(model)
  encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  encoder.decoder = decoders.ByteLevel()
  return encoder


def _unknown(encoder, texts, number=5):
  """Words that a word-level tokenizer lacks, some of them."""
  if encoder.pre_tokenizer is None:
    return []
  split = encoder.pre_tokenizer.pre_tokenize_str
  found = {word for text in texts for word, _ in split(text)}
  return sorted(found - set(encoder.get_vocab()))[:number]
