"""The stream stops when the money does: where to cut it, and what its caller reads then."""

from __future__ import annotations

from collections.abc import Callable

from lastchunk.gateway.budget import code_of, said_stopped
from lastchunk.limits import Purse
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.closing import Stopped, after_last_edge, closing

EDGE_BYTES_LIMIT = 256 * 1024
"""How much is read on to find the end of a frame, before the body is cut without a proper end."""

_LONGEST_EDGE_LESS_ONE = 3


class Guard:
    """Watches one stream. It is asked about the pieces that do not pass by on the call's lane."""

    def __init__(
        self,
        call: MeteredCall,
        purse: Purse,
        look: Callable[[MeteredCall], None],
        *,
        readable: bool,
    ) -> None:
        """`readable` False: frames cannot be told apart, the stream is cut where it is."""
        self._readable = readable
        self._call = call
        self._purse = purse
        self._look = look
        self._tail = b""
        self._read_on = 0
        self.is_cut = False
        """The stream was stopped where a frame ends: what closes it may follow."""

    def came(self) -> bool:
        """More of the answer was received. True: the next to pass is the last."""
        lane = self._call.lane
        if lane.total_bytes >= lane.look_bytes and self._purse.stopped is None:
            lane.look_bytes = lane.total_bytes * 2  # it is told anew when it is counted
            self._look(self._call)
        if self._purse.stopped is None:
            return False
        lane.look_bytes = 0  # also where it was stopped in this very moment
        return self._must_stop()

    def _must_stop(self) -> bool:
        return self._call.is_under_way and not self._call.finish_seen

    def passed(self, piece: bytes) -> None:
        """So much went out to the caller."""
        if len(piece) < _LONGEST_EDGE_LESS_ONE:
            piece = self._tail + piece
        self._tail = piece[-_LONGEST_EDGE_LESS_ONE:]

    def last_of(self, piece: bytes) -> tuple[bytes, bool]:
        """What of this piece still goes out, up to the end of a frame; whether that was the end."""
        if not self._readable:
            return b"", True
        end = after_last_edge(self._tail + piece) - len(self._tail)
        if end > 0 or (end == 0 and self._tail):
            self.is_cut = True
            return piece[:end], True
        self.passed(piece)
        self._read_on += len(piece)
        return piece, self._read_on > EDGE_BYTES_LIMIT

    def closing(self) -> bytes:
        """The frames to end with."""
        call, purse = self._call, self._purse
        assert purse.stopped is not None
        seen, finished = call.so_far()
        request = call.call.request
        return closing(
            Stopped(
                dialect=request.dialect,
                response_id=seen.response_id,
                model=seen.model_served or request.model,
                created_s=call.call.opened_ms // 1000,
                open_choices=tuple(n for n in range(request.choices) if n not in finished),
                events=seen.frames,
                input_tokens=purse.input_tokens,
                output_tokens=purse.output_tokens,
                usage_requested=request.usage_requested,
            ),
            code=code_of(purse.stopped),
            message=said_stopped(purse.stopped),
        )
