"""Tokenizers: known tokens, whole round trips, clear refusals."""

import gzip
import json
import re
import shutil

import pytest
import tokenizers as library
from tokenizers import models

from junlearn.data.text import tokenizer

TEXTS = ["Who wrote it?", "Ann Lee wrote it.", "Who, then, is Ann?"]


def test_words():
  tok = tokenizer.words(TEXTS)
  order = ["<pad>", "<eos>", ",", ".", "?", "Ann", "Lee", "Who", "is", "it"]
  order += ["then", "wrote"]
  assert tok.encoder.get_vocab() == {word: i for i, word in enumerate(order)}
  assert (tok.pad, tok.eos, tok.vocab_size) == (0, 1, 12)
  encoded = tokenizer.encode(tok, TEXTS)
  assert encoded[0] == [7, 11, 9, 4]
  assert [tok.encoder.decode(row) for row in encoded] == TEXTS


def test_unknown_words_are_named():
  tok = tokenizer.words(TEXTS)
  with pytest.raises(ValueError, match="texts contain 'Bob', 'not'; every"):
    tokenizer.encode(tok, ["Who is Bob", "Ann is not"])


def test_bpe_encodes_any_text():
  tok = tokenizer.train_bpe(TEXTS * 20, 300)
  assert (tok.pad, tok.eos) == (0, 1)
  assert 258 < tok.vocab_size <= 300
  texts = [*TEXTS, "Grüße, 你好!\n\tπλ 🙂 "]
  encoded = tokenizer.encode(tok, texts)
  assert [tok.encoder.decode(row) for row in encoded] == texts
  # What is frequent has become one token, and training is repeatable.
  [wrote] = tokenizer.encode(tok, [" wrote"])
  assert len(wrote) == 1
  again = tokenizer.train_bpe(TEXTS * 20, 300)
  assert again.encoder.get_vocab() == tok.encoder.get_vocab()
  with pytest.raises(ValueError, match=r"vocab_size is 257; .* at least 258"):
    tokenizer.train_bpe(TEXTS, 257)


def tofu_rows(real_dir):
  with gzip.open(real_dir / "tofu" / "full.jsonl.gz", "rt") as file:
    return [tuple(json.loads(line).values()) for line in file]


def test_saved_is_loaded(tmp_path):
  for i, tok in enumerate(
    (tokenizer.words(TEXTS), tokenizer.train_bpe(TEXTS, 280))
  ):
    folder = tmp_path / str(i)
    tokenizer.save(tok, folder)
    for path in (folder, folder / "tokenizer.json"):
      again = tokenizer.load(path)
      assert again[1:] == tok[1:]
      assert tokenizer.encode(again, TEXTS) == tokenizer.encode(tok, TEXTS)


def write(folder, words, **files):
  """A folder as of Hugging Face's, with one token a word."""
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  vocabulary = {word: i for i, word in enumerate(words)}
  encoder = library.Tokenizer(models.WordLevel(vocabulary))
  encoder.save(str(folder / "tokenizer.json"))
  for name, content in files.items():
    (folder / f"{name}.json").write_text(json.dumps(content))
  return folder


@pytest.mark.parametrize(
  "files, ends",
  [
    ({"tokenizer_config": {"eos_token": "</s>", "pad_token": "<unk>"}}, (2, 1)),
    ({"tokenizer_config": {"eos_token": {"content": "</s>"}}}, (1, 1)),
    ({"tokenizer_config": {"eos_token": "</s>", "pad_token": None}}, (1, 1)),
    ({"special_tokens_map": {"eos_token": "<unk>"}}, (2, 2)),
    (
      {
        "tokenizer_config": {"eos_token": "</s>"},
        "special_tokens_map": {"eos_token": "<unk>", "pad_token": "<s>"},
      },
      (0, 1),
    ),
  ],
)
def test_names_of_the_ends(tmp_path, files, ends):
  folder = write(tmp_path / "m", ["<s>", "</s>", "<unk>", "a"], **files)
  assert tokenizer.load(folder)[1:] == ends
  given = tokenizer.load(folder, pad="a", eos="<s>")
  assert given[1:] == (3, 0)


def test_what_cannot_be_loaded(tmp_path):
  folder = write(tmp_path / "m", ["</s>", "a"])
  with pytest.raises(
    ValueError, match=r"no file names the EOS token; eos must"
  ):
    tokenizer.load(folder)
  with pytest.raises(ValueError, match="eos is 'b'; it must be a token of"):
    tokenizer.load(folder, eos="b")
  with pytest.raises(ValueError, match="pad is 'b'; it must be a token of"):
    tokenizer.load(folder, eos="a", pad="b")
  (folder / "tokenizer.json").write_text("{}")
  with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
    tokenizer.load(folder)
  for path in (tmp_path, tmp_path / "tokenizer.json"):
    with pytest.raises(FileNotFoundError, match="neither is nor holds a"):
      tokenizer.load(path)


def test_check():
  tok = tokenizer.words([" ".join(map(str, range(93)))])
  for size in (95, 96, 100):
    tokenizer.check(tok, size)
  for size in (94, 101, 50257):
    with pytest.raises(
      ValueError, match=re.escape(f"has 95 tokens and the model {size};")
    ):
      tokenizer.check(tok, size)
  tokenizer.check(tok, 101, max_unused=0.1)


def test_transformers_reads_what_is_saved(tmp_path):
  """Their class and ours agree on tokens and on the two ends."""
  transformers = pytest.importorskip("transformers")
  tok = tokenizer.train_bpe(TEXTS, 280)
  tokenizer.save(tok, tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert (theirs.pad_token_id, theirs.eos_token_id) == (tok.pad, tok.eos)
  assert theirs(TEXTS)["input_ids"] == tokenizer.encode(tok, TEXTS)
