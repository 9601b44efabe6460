import pytest

from lastchunk.simulator.script import Language
from lastchunk.simulator.text import fit, steps_of, vocabulary_of, write_text

LANGUAGES: tuple[Language, ...] = ("english", "german", "chinese", "emoji", "code")
MODELS = ("gpt-4o", "gpt-4")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_has_exactly_the_wanted_tokens(model: str, language: Language) -> None:
    vocabulary = vocabulary_of(model)
    for tokens in (*range(40), 333, 4000):
        text = write_text(vocabulary, language, tokens, "seed")
        assert vocabulary.count(text) == tokens


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("per_step", [1, 3])
def test_steps_say_the_text_in_whole_characters(
    model: str, language: Language, per_step: int
) -> None:
    vocabulary = vocabulary_of(model)
    ids = vocabulary.encode(write_text(vocabulary, language, 200, "seed"))
    steps = steps_of(vocabulary, ids, per_step)
    assert "\ufffd" not in "".join(step.text for step in steps)
    assert [token for step in steps for token in step.ids] == ids
    assert all(step.text.encode() == vocabulary.decode(step.ids) for step in steps)


def test_emoji_make_steps_of_several_tokens() -> None:
    vocabulary = vocabulary_of("gpt-4o")
    ids = vocabulary.encode(write_text(vocabulary, "emoji", 200, "seed"))
    assert max(len(step.ids) for step in steps_of(vocabulary, ids, 1)) > 1


def test_the_same_seed_writes_the_same_text_and_another_one_another() -> None:
    vocabulary = vocabulary_of("gpt-4o")
    texts = [write_text(vocabulary, "english", 50, seed) for seed in ("a", "a", "b")]
    assert texts[0] == texts[1] != texts[2]


def test_a_fitted_prefix_encodes_to_itself() -> None:
    vocabulary = vocabulary_of("gpt-4o")
    ids = vocabulary.encode(write_text(vocabulary, "emoji", 60, "seed"))
    for limit in range(61):
        kept = fit(vocabulary, ids, limit)
        assert len(kept) <= limit
        assert tuple(vocabulary.encode(vocabulary.decode(kept).decode())) == kept


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-4.5-preview", "o200k_base"),
        ("o3", "o200k_base"),
        ("llama-3", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo-instruct", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
    ],
)
def test_a_model_speaks_its_own_vocabulary(model: str, encoding: str) -> None:
    assert vocabulary_of(model).name == encoding


def test_a_lone_surrogate_is_counted_and_does_not_raise() -> None:
    assert vocabulary_of("gpt-4o").count("a\ud800b") == vocabulary_of("gpt-4o").count("a\ufffdb")
