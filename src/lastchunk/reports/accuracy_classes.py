"""What kind of prompt or answer an exchange holds: the classes that accuracy is told by."""

from __future__ import annotations

from enum import StrEnum

from lastchunk.meter.observation import Observation
from lastchunk.reports.accuracy_exchange import Endpoint
from lastchunk.settlement.learned_output import is_finished
from lastchunk.tokens.encodings import encoding_of
from lastchunk.tokens.families import Family, family_of
from lastchunk.usage import OutputCounts
from lastchunk.wire.prompt import Prompt


class PromptClass(StrEnum):
    """What a prompt holds. The last ones are asked for first, `plain` is what remains."""

    PLAIN = "plain"
    MULTI_TURN = "multi-turn"
    TOOLS = "tools"
    TOOL_HISTORY = "tool history"
    JSON_SCHEMA = "json_schema"
    IMAGES = "images"
    EMBEDDINGS = "embeddings"
    OTHER_MODELS = "other models"
    """Not OpenAI's: the template is not known, the vocabulary often only the nearest."""
    NOT_DERIVABLE = "not derivable"
    """The request does not hold all that is billed: files, stored state, built-in tools."""

    @property
    def is_derivable(self) -> bool:
        """Whether the request holds all that a conversation with an OpenAI model is billed for."""
        others = (PromptClass.EMBEDDINGS, PromptClass.OTHER_MODELS, PromptClass.NOT_DERIVABLE)
        return self not in others


class OutputClass(StrEnum):
    """By family where the family decides, else by what the answer holds."""

    TEXT = "text"
    ONE_CALL = "one call"
    PARALLEL = "parallel calls"
    REFUSAL = "refusal"
    STOPPED = "length limit"
    """Ended by a length limit: there are no end-of-turn tokens."""
    OTHER = "other"
    """Several choices, audio, text beside calls."""
    LATER_GPT_5 = "gpt-5.x"
    ROUNDED = "gpt-5, o"
    """These round hidden reasoning down to a multiple of 64: up to 63 tokens more are billed."""
    OTHER_MODELS = "other models"
    NOT_DERIVABLE = "not derivable"
    """Nothing visible, or the provider ran tools of its own: more is billed than is shown."""

    @property
    def is_derivable(self) -> bool:
        """Whether all that is billed can be seen."""
        unsure = (OutputClass.OTHER_MODELS, OutputClass.ROUNDED, OutputClass.NOT_DERIVABLE)
        return self not in unsure


def prompt_class(endpoint: Endpoint, prompt: Prompt, model: str) -> PromptClass:
    """The class of a prompt, by its structure alone."""
    if prompt.unknowns:
        return PromptClass.NOT_DERIVABLE
    if endpoint is Endpoint.EMBEDDINGS and encoding_of(model).exact:
        return PromptClass.EMBEDDINGS
    if family_of(model) is Family.OTHER:
        return PromptClass.OTHER_MODELS
    if any(turn.pictures for turn in prompt.turns):
        return PromptClass.IMAGES
    if prompt.answer_schema is not None:
        return PromptClass.JSON_SCHEMA
    if any(turn.calls or turn.answers is not None for turn in prompt.turns):
        return PromptClass.TOOL_HISTORY
    if prompt.tools:
        return PromptClass.TOOLS
    if sum(turn.role not in ("system", "developer") for turn in prompt.turns) > 1:
        return PromptClass.MULTI_TURN
    return PromptClass.PLAIN


_BY_FAMILY = {
    Family.OTHER: OutputClass.OTHER_MODELS,
    Family.O_SERIES: OutputClass.ROUNDED,
    Family.GPT_5: OutputClass.ROUNDED,
    Family.GPT_5_1: OutputClass.LATER_GPT_5,
    Family.GPT_5_4: OutputClass.LATER_GPT_5,
}


def output_class(
    counts: OutputCounts, seen: Observation, model: str, tools_upstream: bool
) -> OutputClass:
    """The class of an answer, by what was counted of it."""
    if tools_upstream or not counts.total:
        return OutputClass.NOT_DERIVABLE
    if (by_family := _BY_FAMILY.get(family_of(model))) is not None:
        return by_family
    if seen.finished_choices > 1 or counts.other_tokens or counts.reasoning_tokens:
        return OutputClass.OTHER
    if not is_finished(seen):
        return OutputClass.STOPPED
    if counts.refusal_tokens:
        return OutputClass.REFUSAL
    if not counts.calls:
        return OutputClass.TEXT
    if counts.text_tokens:
        return OutputClass.OTHER
    return OutputClass.ONE_CALL if counts.calls == 1 else OutputClass.PARALLEL
