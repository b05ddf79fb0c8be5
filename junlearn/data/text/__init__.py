"""Questions and answers, and the tokens that they become."""

from junlearn.data.text import authors as authors
from junlearn.data.text import encoding as encoding
from junlearn.data.text import negatives as negatives
from junlearn.data.text import tofu as tofu
from junlearn.data.text import tokenizer as tokenizer
