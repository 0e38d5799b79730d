"""The server: an address of this machine, a loop, and an end when it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vwkit.errors import RunError
from vwkit.jobs import Job, job
from vwkit_serve.application import application
from vwkit_serve.guard import is_loopback
from vwkit_serve.holder import Holder
from vwkit_serve.served import Served
from vwkit_serve.workers import Workers

if TYPE_CHECKING:
    from vwkit_serve import Web

__all__ = ["serve"]

#: Connections held at once; more are answered with 503 by the server itself.
_CONNECTIONS = 1024
_GRACE_SECONDS = 3
_TICK = 0.1


class _Server(uvicorn.Server):
    """Leaves the signals to whoever called us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(H11Protocol):
    """Ends a connection whose client does not send the head of a request in time."""

    seconds = 30.0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Head and body go out one after the other; without this the body waits 40 ms for the
        # client's delayed acknowledgement. (asyncio sets it only for sockets of a named protocol.)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        request: Any = self.cycle  # none before the first
        if request is None or request.response_complete:
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def serve(settings: Web, run: Any, ready: Callable[[str], None]) -> None:
    """Serve a run until the current job is asked to stop; see `vwkit.around.App`."""
    current = job()
    with contextlib.closing(_listening(settings.host, settings.port)) as listener:
        threads = settings.threads or current.threads
        # Requests share the threads: what one request does is done by its share of them.
        own = Job(
            threads=max(1, current.threads // threads), memory=current.memory, stop=current.stop
        )
        workers = Workers(own, threads, settings.queue)
        try:
            served = Served(run, settings.max_pixels)
            holder = Holder(served, workers, settings.max_pixels)
            if not is_loopback(settings.host):
                warnings.warn(
                    f"listening on {settings.host}: whoever reaches port "
                    f"{listener.getsockname()[1]} of this machine sees the pictures of this run; "
                    "there is no password",
                    stacklevel=2,
                )
            app = application(settings, holder, workers)
            asyncio.run(_until_stopped(settings, app, listener, current, ready))
        finally:
            workers.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise RunError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; take another port, "
            "or 0 for a free one"
        ) from None
    except UnicodeError:
        raise RunError(f"{host!r} is no address to listen on") from None


def _url(settings: Web, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


async def _until_stopped(
    settings: Web, app: Any, listener: socket.socket, current: Job, ready: Callable[[str], None]
) -> None:
    protocol = type("_Protocol", (_Protocol,), {"seconds": float(settings.timeout)})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    told = False
    while not task.done():
        if server.started and not told:
            told = True
            ready(_url(settings, listener))
        if current.stop.is_set():
            server.should_exit = True
        await asyncio.sleep(_TICK)
    await task
