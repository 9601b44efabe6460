"""Text of an exact number of tokens, and the pieces in which a stream may say it."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import splintr

from lastchunk.simulator import words
from lastchunk.simulator.script import Language

# One token in either vocabulary, after any text: it begins a word of its own.
FILLER = " so"
_CL100K = ("gpt-3.5", "gpt-35", "gpt-4-", "davinci-002", "babbage-002", "text-embedding-")


@dataclass(frozen=True, slots=True)
class Step:
    """What one chunk adds: the text that is shown and the ids that were generated for it."""

    text: str
    ids: tuple[int, ...]


class Vocabulary:
    """One encoding: text to ids, ids to bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tokenizer = splintr.Tokenizer.from_pretrained(name)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; a lone surrogate counts as U+FFFD, for the tokenizer refuses it."""
        try:
            return list(self._tokenizer.encode_ordinary(text))
        except UnicodeEncodeError:
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return list(self._tokenizer.encode_ordinary(whole))

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def bytes_of(self, token: int) -> bytes:
        return _bytes_of(self, token)

    def decode(self, ids: Iterable[int]) -> bytes:
        return bytes(self._tokenizer.decode_bytes(list(ids)))


@functools.lru_cache(maxsize=65_536)
def _bytes_of(vocabulary: Vocabulary, token: int) -> bytes:
    return vocabulary.decode((token,))


@functools.cache
def _load(name: str) -> Vocabulary:
    return Vocabulary(name)


def vocabulary_of(model: str) -> Vocabulary:
    """The encoding of a model by its name; whatever is unknown speaks o200k_base."""
    name = model.rpartition("/")[2]
    older = name == "gpt-4" or name.startswith(_CL100K)
    return _load("cl100k_base" if older else "o200k_base")


@functools.lru_cache(maxsize=4096)
def write_text(vocabulary: Vocabulary, language: Language, tokens: int, seed: str) -> str:
    """A text that encodes to exactly `tokens` ids; the same arguments give the same text."""
    rng = random.Random(f"text:{seed}")
    parts: list[str] = []
    while vocabulary.count("".join(parts)) < tokens:
        parts.extend(_passage(rng, language, tokens, first=not parts))
    low, high = 0, len(parts)
    while low < high:  # the longest prefix that fits; counts grow with the text but for a few
        middle = (low + high + 1) // 2
        if vocabulary.count("".join(parts[:middle])) <= tokens:
            low = middle
        else:
            high = middle - 1
    text = "".join(parts[:low])
    while (missing := tokens - vocabulary.count(text)) > 0:
        text += FILLER * missing
    assert vocabulary.count(text) == tokens, (language, tokens, seed)
    return text


def _passage(rng: random.Random, language: Language, tokens: int, *, first: bool) -> list[str]:
    size = max(8, tokens // 2)
    match language:
        case "english":
            return _sentences(rng, words.ENGLISH, size, first)
        case "german":
            return _sentences(rng, words.GERMAN, size, first)
        case "chinese":
            marks = ("",) * 8 + ("，", "。", "\n")
            return [rng.choice(words.CHINESE) + rng.choice(marks) for _ in range(size)]
        case "emoji":
            return [rng.choice(("", "", " ")) + rng.choice(words.EMOJI) for _ in range(size)]
        case "code":
            return [rng.choice(words.CODE) + "\n" for _ in range(size // 4 + 1)]


def _sentences(rng: random.Random, corpus: Sequence[str], size: int, first: bool) -> list[str]:
    marks = ("",) * 10 + (",", ".", ".\n\n", "!", " (42 %)", " –", ":\n- ")
    said = [f" {rng.choice(corpus)}{rng.choice(marks)}" for _ in range(size)]
    if first:
        said[0] = said[0].lstrip().capitalize()
    return said


def fit(vocabulary: Vocabulary, ids: Sequence[int], limit: int) -> tuple[int, ...]:
    """The longest prefix within `limit` whose text encodes to that same prefix again."""
    for size in range(min(limit, len(ids)), 0, -1):
        prefix = list(ids[:size])
        try:
            text = vocabulary.decode(prefix).decode()
        except UnicodeDecodeError:
            continue
        if vocabulary.encode(text) == prefix:
            return tuple(prefix)
    return ()


def steps_of(vocabulary: Vocabulary, ids: Sequence[int], per_step: int) -> tuple[Step, ...]:
    """`ids` as steps of `per_step` tokens; a step waits until its last character is whole."""
    steps: list[Step] = []
    held: list[int] = []
    raw = b""
    for token in ids:
        held.append(token)
        raw += vocabulary.bytes_of(token)
        if len(held) < per_step:
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            continue
        steps.append(Step(text, tuple(held)))
        held, raw = [], b""
    if held:
        steps.append(Step(raw.decode(errors="replace"), tuple(held)))
    return tuple(steps)
