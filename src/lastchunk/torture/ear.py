"""What the caller of one call saw, and when its moment had come."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from lastchunk.stage.heard import Heard
from lastchunk.torture.faults import PlannedCall
from lastchunk.torture.matrix import Moment

TEXT_IS_DONE = ("response.output_text.done", "response.output_item.done")
"""What in Responses stands for the finish: all output is there, the terminal event is not."""


class Report(msgspec.Struct):
    """What the caller of one call saw. Of the text only its length and checksum."""

    call: str
    chunks: int = 0
    chars: int = 0
    checksum: int = 0
    usage_seen: bool = False
    error: str | None = None
    first_seconds: float | None = None
    seconds: float = 0.0


class Line(msgspec.Struct):
    """One line of output: exactly one of its fields is set."""

    reached: str | None = None
    report: Report | None = None
    over: bool = False


class Ear:
    """Hears one call, and knows when its moment has come."""

    def __init__(self, call: PlannedCall) -> None:
        self._call = call
        self._heard = Heard(call.number)
        self._began = time.monotonic()
        self._text_is_done = False
        self.report = Report(call.tag)

    def hear(self, chunk: Any) -> None:
        self._heard.hear(chunk)
        report = self.report
        if report.first_seconds is None:
            report.first_seconds = time.monotonic() - self._began
        self._text_is_done |= getattr(chunk, "type", None) in TEXT_IS_DONE
        for text in _texts(chunk):
            report.chars += len(text)
            report.checksum = zlib.crc32(text.encode(), report.checksum)
        report.chunks, report.usage_seen = self._heard.chunks, self._heard.usage is not None

    @property
    def moment_is_here(self) -> bool:
        """Whether what was heard so far is the moment; END comes with the end of the stream."""
        match self._call.cell.moment:
            case Moment.FIRST_CHUNK:
                return True
            case Moment.MID:
                return self._heard.chunks >= self._call.leave_after
            case Moment.FINISH:
                return self._heard.finished > 0 or self._text_is_done
            case Moment.USAGE:
                return self._heard.usage is not None
            case _:
                return False

    def over(self, error: BaseException | None = None) -> Report:
        self.report.seconds = time.monotonic() - self._began
        self.report.error = None if error is None else type(error).__name__
        return self.report


def _texts(chunk: Any) -> Iterator[str]:
    if isinstance(delta := getattr(chunk, "delta", None), str):
        yield delta
    for choice in getattr(chunk, "choices", None) or ():
        told = getattr(choice, "delta", None)
        text = choice.text if told is None else told.content
        if text is not None:
            yield text
