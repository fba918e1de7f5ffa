"""uvicorn with two promises more: a stopped server answers what is in hand, and a client cannot be slow for ever.

The first SIGTERM or SIGINT stops listening, answers what is in hand (``STOP_S`` at most) and ends. The second one ends
at once; nothing that was acknowledged is lost, since it is on disk before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from polypref.serve.running.garbage import SetApart

STOP_S = 30  # for requests in hand
SWITCH_S = 0.0005  # for which a thread may keep Python from others: the store's writer needs it several times a commit
KEEP_S = 5  # for the next request of a connection
MOST_HEADERS = 65_536  # bytes that the parser holds; ``Limits.headers`` refuses fewer with a clear answer


def server_of(app: FastAPI, read_seconds: int, ready: Callable[[], None] = lambda: None) -> Server:
    """A server of the application; ``ready`` is called once it answers. Connections whose request's first lines take
    longer than ``read_seconds`` are closed."""

    class Patient(H11Protocol):
        """Closes a connection whose headers do not arrive."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop_watching()

        def _watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._stop_watching()
            elif self._late is None:
                self._late = asyncio.get_running_loop().call_later(read_seconds, self.transport.close)

        def _stop_watching(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    config = uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_S,
        timeout_graceful_shutdown=STOP_S,
        h11_max_incomplete_event_size=MOST_HEADERS,
    )
    upstream = app.state.upstream
    return Server(config, ready, None if upstream is None else upstream.stop)


class Server(uvicorn.Server):
    """Ends after what is in hand on the first signal, at once on the second."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None] | None = None
    ) -> None:
        super().__init__(config)
        self._ready, self._apart, self._stopping = ready, SetApart(), stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        sys.setswitchinterval(SWITCH_S)
        if threading.current_thread() is threading.main_thread():  # the process is this server's
            self._apart.begin()
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        if threading.current_thread() is threading.main_thread():
            self._apart.look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._stopping is not None:
            self._stopping()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.should_exit = True
