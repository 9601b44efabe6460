"""Which vocabulary a model uses, and how many tokens a text has in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import splintr

SLICE_CHARACTERS = 16 * 1024
"""Counted at once. splintr holds the interpreter's lock: a slice costs 1 to 2 ms at worst."""

CAP_CHARACTERS = 4 * 1024 * 1024
"""Counted of one text; the rest is extrapolated. A quarter of a second of work at most."""

CHARACTERS_PER_TOKEN = 4
"""The rule of thumb when no tokenizer works: English has about four UTF-8 bytes a token."""

EXTRAPOLATION_SPREAD = 0.25
"""Of the extrapolated tokens: how far the unread rest may differ from what was read."""

_LETTERS = (
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u0400-\u0481\u048a-\u052f\u05d0-\u05ea"
    "\u0620-\u063f\u0641-\u064a\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
)
_AFTER = r"\x00-&(-/:-@\[-`{-\x7f\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
_SAFE_SPLIT = re.compile(f"(?<=[{_LETTERS}])(?=[{_AFTER}0-9])|(?<=[0-9])(?=[{_AFTER}A-Za-z])")
"""Where o200k_base and cl100k_base always begin a new pre-token: after a letter or a digit, before
punctuation or white space. The apostrophe is left out, because contractions bind to the word."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_LOOK_BACK = (64, 1024, SLICE_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Encoding:
    """A vocabulary chosen for a model.

    `known`: the model's family is known; `exact`: the vocabulary is the model's own, not only the
    nearest one at hand.
    """

    name: str
    known: bool = True
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of a text; the true number is within `tokens ± spread`."""

    tokens: int
    spread: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.tokens + other.tokens, self.spread + other.spread)


O200K = Encoding("o200k_base")
CL100K = Encoding("cl100k_base")
UNKNOWN = Encoding("o200k_base", known=False, exact=False)

_FAMILIES: tuple[tuple[str, Encoding], ...] = (
    ("gpt-3.5-turbo-instruct", CL100K),
    ("gpt-3.5", CL100K),
    ("gpt-35", CL100K),
    ("gpt-4o", O200K),
    ("gpt4o", O200K),
    ("gpt-4.1", O200K),
    ("gpt-41", O200K),
    ("gpt-4.5", O200K),
    ("gpt-4", CL100K),
    ("gpt4", CL100K),
    ("davinci-002", CL100K),
    ("babbage-002", CL100K),
    ("text-embedding-", CL100K),
    ("gpt-5", O200K),
    ("gpt-6", O200K),
    ("gpt-oss", O200K),
    ("gpt-audio", O200K),
    ("gpt-realtime", O200K),
    ("gpt-image", O200K),
    ("chatgpt", O200K),
    ("codex", O200K),
    ("computer-use-preview", O200K),
    ("o1", O200K),
    ("o3", O200K),
    ("o4", O200K),
    ("text-davinci", Encoding("cl100k_base", exact=False)),
    ("llama-3", Encoding("llama3")),
    ("llama3", Encoding("llama3")),
    ("meta-llama-3", Encoding("llama3")),
    ("llama-4", Encoding("o200k_base", exact=False)),
    ("llama4", Encoding("o200k_base", exact=False)),
    ("llama", Encoding("llama3", exact=False)),
    ("deepseek-r1-distill-llama", Encoding("llama3")),
    ("deepseek-r1-distill", Encoding("llama3", exact=False)),
    ("deepseek", Encoding("deepseek_v3")),
    ("ministral", Encoding("mistral_v3", exact=False)),
    ("mistral", Encoding("mistral_v3", exact=False)),
    ("mixtral", Encoding("mistral_v3", exact=False)),
    ("magistral", Encoding("mistral_v3", exact=False)),
    ("devstral", Encoding("mistral_v3", exact=False)),
    ("codestral", Encoding("mistral_v3", exact=False)),
    ("pixtral", Encoding("mistral_v3", exact=False)),
    ("phi-4", Encoding("phi4")),
    ("phi4", Encoding("phi4")),
    ("olmo-2", Encoding("olmo2")),
    ("olmo", Encoding("olmo2", exact=False)),
    ("qwen", Encoding("cl100k_base", exact=False)),
    ("qwq", Encoding("cl100k_base", exact=False)),
    ("glm", Encoding("o200k_base", exact=False)),
    ("kimi", Encoding("o200k_base", exact=False)),
    ("moonshot", Encoding("o200k_base", exact=False)),
    ("gemma", Encoding("o200k_base", exact=False)),
    ("gemini", Encoding("o200k_base", exact=False)),
    ("grok", Encoding("o200k_base", exact=False)),
    ("granite", Encoding("cl100k_base", exact=False)),
    ("claude", Encoding("cl100k_base", exact=False)),
)
"""Name prefix → vocabulary; the first that fits speaks, so the longer stand before the shorter."""


def base_model(model: str) -> str:
    """The model's own name in lower case, without `provider/` and a fine-tune's `ft:`, suffix."""
    name = model.strip().lower().rsplit("/", 1)[-1]
    return name.removeprefix("ft:").split(":", 1)[0]


def encoding_of(model: str) -> Encoding:
    """The vocabulary of a model, by its name; an unknown name gets o200k_base, `known=False`."""
    name = base_model(model)
    for prefix, encoding in _FAMILIES:
        if name.startswith(prefix):
            return encoding
    return UNKNOWN


def countable_model(served: str | None, asked: str) -> str:
    """The name to count by: what served, unless only the name asked for tells the vocabulary."""
    if served is None or (not encoding_of(served).known and encoding_of(asked).known):
        return asked
    return served


_NO_TOKEN_OF_ITS_OWN = "zxqvwk"
"""To count it, parts must be merged; the table for that is made when it is first used."""


@cache
def _tokenizer(name: str) -> splintr.AnyTokenizer | None:
    """The loaded vocabulary, or None if it cannot be loaded.

    Once, with its first merge: 0.09 s and 42 MB for o200k, 0.04 s and 29 MB for cl100k.
    """
    try:
        return splintr.Tokenizer.from_pretrained(name)
    except BaseException as error:
        # A panic of the Rust side is a BaseException of no class that can be named here.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return None


def warm() -> None:
    """Load the vocabulary of models since gpt-4o now: else the first count does, in 0.1 s."""
    count(_NO_TOKEN_OF_ITS_OWN, O200K)


def _count_slice(text: str, encoding: Encoding) -> Counted:
    tokenizer = _tokenizer(encoding.name)
    if tokenizer is not None:
        try:
            return Counted(len(tokenizer.encode_ordinary(text)))
        except BaseException as error:
            # The same panic, met while counting: an estimate is better than a lost call.
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
    size = len(text.encode("utf-8", "replace"))
    return Counted(-(-size // CHARACTERS_PER_TOKEN), size // CHARACTERS_PER_TOKEN)


def last_safe_split(text: str, start: int, end: int) -> int | None:
    """The last place in `(start, end)` where a split changes no count; None if there is none."""
    for back in _LOOK_BACK:
        begin = max(start, end - back)
        last = None
        for found in _SAFE_SPLIT.finditer(text, begin, end):
            last = found.start()
        if last is not None and last > start:
            return last
        if begin == start:
            return None
    return None


def slices(text: str) -> Iterator[tuple[str, bool]]:
    """`text` in pieces of at most `SLICE_CHARACTERS`; True where the piece's end was forced."""
    start = 0
    while len(text) - start > SLICE_CHARACTERS:
        end = start + SLICE_CHARACTERS
        # One character further is looked at, so that a boundary exactly at the end counts.
        split = last_safe_split(text, start, end + 1)
        yield text[start : split or end], split is None
        start = split or end
    if start < len(text):
        yield text[start:], False


def count(text: str, encoding: Encoding, cap: int = CAP_CHARACTERS) -> Counted:
    """The tokens of `text`, special tokens read as plain text. Never raises; linear in time.

    Splits that had to be forced widen the spread by one each. Beyond `cap` characters the rest is
    extrapolated at the ratio of what was counted.
    """
    head = text if len(text) <= cap else text[:cap]
    head = _SURROGATE.sub("\ufffd", head)
    total = Counted(0)
    for piece, forced in slices(head):
        total += _count_slice(piece, encoding) + Counted(0, int(forced))
    unread = len(text) - len(head)
    if not unread:
        return total
    ratio = total.tokens / len(head) if head else 1 / CHARACTERS_PER_TOKEN
    rest = round(unread * ratio)
    return total + Counted(rest, round(rest * EXTRAPOLATION_SPREAD) if head else rest)
