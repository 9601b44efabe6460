"""The in-process way in: clients of openai on httpx and httpx2, sync and async."""

from lastchunk.instrument.client import instrument, uninstrument
from lastchunk.instrument.labels import exact, label, watch
from lastchunk.instrument.process import close

__all__ = ["close", "exact", "instrument", "label", "uninstrument", "watch"]
