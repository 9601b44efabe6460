"""A ledger that goes away and comes back: a locked file, or a server behind a proxy that is cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from lastchunk.ledger.throwaway import address_of, held_exclusively, reached_at

OUTAGE_SECONDS = 20.0
"""Longer than a writer waits for a lock, all its tries together."""

_PIECE_BYTES = 65_536


class Outage(Protocol):
    """A ledger, by the `url` that doors are given, that can be taken away."""

    url: str

    def away(self) -> AbstractContextManager[None]:
        """While the block lasts it cannot be written."""
        ...


class LockedFile:
    """A SQLite ledger that another process holds."""

    def __init__(self, path: str) -> None:
        self.url = path

    def away(self) -> AbstractContextManager[None]:
        return held_exclusively(self.url)


class CutServer:
    """A ledger on a server, reached through a proxy of our own: the server is not touched."""

    def __init__(self, url: str) -> None:
        self._server = address_of(url)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = self._listen(0)
        self._port = int(self._listener.getsockname()[1])
        self.url = reached_at(url, "127.0.0.1", self._port)

    @contextmanager
    def away(self) -> Iterator[None]:
        self.close()
        try:
            yield
        finally:
            self._listener = self._listen(self._port)

    def close(self) -> None:
        """Refuse new connections and cut those that are open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._lock:
            open_now = list(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed: the server is away
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with ExitStack() as stack:
            stack.enter_context(client)
            try:
                server = stack.enter_context(socket.create_connection(self._server))
            except OSError:
                return
            with self._lock:
                self._connections |= {client, server}
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()
            with self._lock:
                self._connections -= {client, server}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Bytes one way until either side ends; then both ways are over."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            sink.sendall(piece)
    for connection in (source, sink):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
