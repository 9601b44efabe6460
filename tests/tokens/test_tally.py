"""The running tally: any cut of a text gives the same counts, and memory stays bounded."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lastchunk.tokens.encodings import Encoding, count
from lastchunk.tokens.tally import (
    FOLD_CHARACTERS,
    ITEMS,
    PARALLEL_NAME,
    GrowingText,
    OutputTally,
    compact_arguments,
    parallel_text,
)
from lastchunk.wire.events import ReasoningArrived, TextArrived, TextKind, ToolTextArrived

O200K = Encoding("o200k_base")
WORDS = 'A story, in pieces: 12 of them {"a": 1} don\'t stop.\n日本語、です。 '


def tokens(text: str) -> int:
    return count(text, O200K).tokens


@given(
    text=st.lists(st.sampled_from(WORDS.split(" ")), max_size=200).map(" ".join),
    cuts=st.lists(st.integers(0, 2000), max_size=30),
    looks=st.integers(1, 5),
)
def test_any_cut_of_a_text_is_counted_like_the_whole(
    text: str, cuts: list[int], looks: int
) -> None:
    tally = OutputTally(O200K)
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for number, (start, end) in enumerate(itertools.pairwise(borders)):
        tally.add(TextArrived(0, TextKind.CONTENT, text[start:end]))
        if number % looks == 0:
            tally.counts()
    assert tally.counts().text_tokens == tokens(text)
    assert tally.counts().spread == 0


@given(st.text(alphabet="é中😀", max_size=300), st.integers(1, 50))
def test_a_text_without_boundaries_stays_within_its_spread(unit: str, size: int) -> None:
    text = unit * 200
    growing = GrowingText(O200K)
    for start in range(0, len(text), size * 40):
        growing.add(text[start : start + size * 40])
        growing.counted()
    counted = growing.counted()
    whole = count(text, O200K)
    assert abs(counted.tokens - whole.tokens) <= counted.spread + whole.spread


def test_each_kind_of_text_is_counted_apart_and_summaries_are_not_counted() -> None:
    tally = OutputTally(O200K)
    tally.add(TextArrived(0, TextKind.CONTENT, "two words"))
    tally.add(TextArrived(0, TextKind.REFUSAL, "I cannot do that"))
    tally.add(TextArrived(0, TextKind.TRANSCRIPT, "spoken"))
    tally.add(ReasoningArrived(0, "let me think about it"))
    tally.add(ReasoningArrived(0, "a summary of the thoughts", summary=True))
    counts = tally.counts()
    assert counts.text_tokens == tokens("two words")
    assert counts.refusal_tokens == tokens("I cannot do that")
    assert counts.other_tokens == tokens("spoken")
    assert counts.reasoning_tokens == tokens("let me think about it")
    assert counts.calls == 0


def test_choices_are_counted_apart_and_summed() -> None:
    tally = OutputTally(O200K)
    for piece in ("un", "believable"):
        for choice in (0, 1):
            tally.add(TextArrived(choice, TextKind.CONTENT, piece))
    assert tally.counts().text_tokens == 2 * tokens("unbelievable")


def test_the_providers_own_logprobs_outrank_the_tokenizer() -> None:
    tally = OutputTally(O200K)
    tally.add(TextArrived(0, TextKind.CONTENT, "", None))
    tally.add(TextArrived(0, TextKind.CONTENT, "Hello", 3))
    tally.add(TextArrived(0, TextKind.CONTENT, " there", 2))
    assert tally.counts().text_tokens == 5


def test_logprobs_on_a_part_of_the_pieces_are_not_used() -> None:
    tally = OutputTally(O200K)
    tally.add(TextArrived(0, TextKind.CONTENT, "Hello", 3))
    tally.add(TextArrived(0, TextKind.CONTENT, " there"))
    assert tally.counts().text_tokens == tokens("Hello there")


def test_one_call_is_its_name_and_its_arguments() -> None:
    tally = OutputTally(O200K)
    tally.add(ToolTextArrived(0, 0, "look_up", ""))
    for piece in ('{"que', 'ry": "ships', ' at sea"}'):
        tally.add(ToolTextArrived(0, 0, "", piece))
        tally.counts()
    expected = tokens("functions.look_up") + tokens('{"query": "ships at sea"}')
    assert tally.counts().call_tokens == expected
    assert tally.counts().calls == 1


def test_several_calls_of_a_choice_are_counted_as_one_parallel_call() -> None:
    tally = OutputTally(O200K)
    tally.add(ToolTextArrived(0, 0, "first", '{"a": 1}'))
    tally.add(ToolTextArrived(0, 1, "second", "{}"))
    text = (
        '{"tool_uses":[{"recipient_name":"functions.first","parameters":{"a":1}},'
        '{"recipient_name":"functions.second","parameters":{}}]}'
    )
    assert parallel_text([("first", '{"a": 1}'), ("second", "{}")]) == text
    assert tally.counts().call_tokens == tokens(PARALLEL_NAME) + tokens(text)


def test_parallel_calls_too_long_to_keep_are_summed() -> None:
    tally = OutputTally(O200K)
    arguments = '{"text": "' + "many words " * 10_000 + '"}'
    for call in (0, 1):
        tally.add(ToolTextArrived(0, call, "write", arguments))
    least = 2 * tokens(arguments)
    assert least < tally.counts().call_tokens < least + 60
    assert tally.counts().spread >= 2


def test_memory_stays_bounded_while_a_stream_grows() -> None:
    growing = GrowingText(O200K)
    for _ in range(20_000):
        growing.add("word after word ")
        assert growing._size <= FOLD_CHARACTERS + 32


def test_choices_and_calls_without_end_share_a_place() -> None:
    tally = OutputTally(O200K)
    for number in range(2 * ITEMS):
        tally.add(TextArrived(number, TextKind.CONTENT, "x "))
        tally.add(ToolTextArrived(0, number, "f", "{}"))
    assert tally.counts().calls == ITEMS


def test_arguments_that_are_not_json_are_counted_as_they_stand() -> None:
    assert compact_arguments('{"half": ') == '{"half": '
    assert compact_arguments('{"a": [1, 2]}') == '{"a":[1,2]}'
