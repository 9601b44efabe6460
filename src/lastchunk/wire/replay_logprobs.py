"""Texts with log probabilities in pieces: each piece with the tokens that it is made of."""

from __future__ import annotations

from typing import Any

from lastchunk.wire.replay_pieces import PIECE_CHARS, Json, is_text, pieces_of

_Pieces = list[tuple[str, Json | None]]


def chat_pieces(kind: str, text: str, logprobs: Json) -> tuple[_Pieces, Json | None]:
    """Pieces of a chat message's `kind` (content or refusal), and the logprobs that are left.

    Where the tokens do not make up the text, all of them come with its first piece.
    """
    entries = logprobs.get(kind)
    left = {name: value for name, value in logprobs.items() if name != kind}
    rest = {**left, kind: None} if any(value is not None for value in left.values()) else None
    if not isinstance(entries, list):
        return [(piece, None) for piece in pieces_of(text)], logprobs if rest else None
    nothing = dict.fromkeys(logprobs)
    groups = _grouped(text, [_bytes_of(entry) for entry in entries])
    if groups is None:
        first, *others = pieces_of(text)
        whole: _Pieces = [(first, {**nothing, kind: entries})]
        return whole + [(piece, None) for piece in others], rest
    return [(piece, {**nothing, kind: entries[a:b]}) for piece, a, b in groups], rest


def part_pieces(text: str, entries: object) -> list[tuple[str, list[Any]]]:
    """Pieces of a response's text part, each with its tokens, which may be none."""
    told = entries if isinstance(entries, list) else []
    groups = _grouped(text, [_bytes_of(entry) for entry in told])
    if groups is not None:
        return [(piece, told[a:b]) for piece, a, b in groups]
    return [(piece, [] if number else told) for number, piece in enumerate(pieces_of(text))]


def completion_pieces(text: str, logprobs: Json) -> _Pieces:
    """Pieces of a legacy completion's text: lists as long as its tokens are cut with them."""
    tokens = logprobs.get("tokens")
    size = len(tokens) if isinstance(tokens, list) else 0
    said = [token.encode() if is_text(token) else None for token in tokens or ()] if size else []
    groups = _grouped(text, said)
    if groups is None:
        return [(text, logprobs)]
    return [
        (
            piece,
            {
                name: value[a:b] if isinstance(value, list) and len(value) == size else value
                for name, value in logprobs.items()
            },
        )
        for piece, a, b in groups
    ]


def _bytes_of(entry: Any) -> bytes | None:
    """The bytes of a token: its own list of them, else its text's."""
    if not isinstance(entry, dict):
        return None
    try:
        return bytes(entry["bytes"])
    except (KeyError, TypeError, ValueError):
        token = entry.get("token")
        return token.encode("utf-8", "replace") if isinstance(token, str) else None


def _grouped(text: str, tokens: list[bytes | None]) -> list[tuple[str, int, int]] | None:
    """Pieces of the text, each with the span of its tokens; None where they do not make it up."""
    groups: list[tuple[str, int, int]] = []
    held, start, told = b"", 0, 0
    for number, token in enumerate(tokens, start=1):
        if token is None:
            return None
        held += token
        if len(held) < PIECE_CHARS and number < len(tokens):
            continue
        try:
            piece = held.decode()
        except UnicodeDecodeError:
            continue  # a character goes on in the next token
        if not text.startswith(piece, told):
            return None
        groups.append((piece, start, number))
        told += len(piece)
        held, start = b"", number
    return groups if groups and told == len(text) and not held else None
