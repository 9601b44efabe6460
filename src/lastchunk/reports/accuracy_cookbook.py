"""The plain cookbook rule for prompts, as a baseline to compare with.

`num_tokens_from_messages` of OpenAI's cookbook ("How to count tokens with tiktoken"): each message
costs 3 tokens and the tokens of each of its values, a name 1 more, and the prompt 3 for the
answer's opening. Tools, schemas, images and anything that is not text cost nothing, as there. The
texts of a responses request are taken as messages: the rule has nothing else to say about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lastchunk.reports.accuracy_exchange import Endpoint
from lastchunk.tokens.encodings import Encoding, count, encoding_of

_A_MESSAGE = 3
_A_NAME = 1
_AN_ANSWER = 3


def cookbook_count(endpoint: Endpoint, request: Mapping[str, object], model: str) -> int:
    """Input tokens by the cookbook's rule; never raises."""
    encoding = encoding_of(model)
    if endpoint in (Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS):
        given = request.get("prompt", request.get("input"))
        return sum(count(text, encoding).tokens for text in _texts(given))
    total = _AN_ANSWER
    for message in _messages(request):
        total += _A_MESSAGE + _of_values(message, encoding)
    return total


def _of_values(message: Mapping[str, object], encoding: Encoding) -> int:
    total = _A_NAME if isinstance(message.get("name"), str) else 0
    for key, value in message.items():
        texts = _texts(value) if key == "content" else [value] if isinstance(value, str) else []
        total += sum(count(text, encoding).tokens for text in texts)
    return total


def _messages(request: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    given = request.get("messages", request.get("input"))
    if isinstance(request.get("instructions"), str):
        yield {"role": "system", "content": request["instructions"]}
    if isinstance(given, str):
        yield {"role": "user", "content": given}
    for message in given if isinstance(given, list) else ():
        if isinstance(message, dict):
            yield message


def _texts(value: object) -> Iterator[str]:
    """A text, or the texts of a list of texts or of typed parts."""
    if isinstance(value, str):
        yield value
    for part in value if isinstance(value, list) else ():
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]
