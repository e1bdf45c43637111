"""Several servers as one: requests go where the fewest are outstanding."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gnnscript.client._transport import Transport

__all__ = ["Balancer", "Endpoint"]

_PROBE_INTERVAL = 0.25


@dataclass
class Endpoint:
    """One server, and what is known of it."""

    transport: Transport
    outstanding: int = 0
    last_used: int = 0
    down: bool = False


class Balancer:
    """Chooses the server for each request, and watches those that are down until they return.

    Args:
        transports: The ways to the servers.
        model: The model that has to be ready on a server that returns.
    """

    def __init__(self, transports: Sequence[Transport], model: str) -> None:
        self._endpoints = [Endpoint(transport) for transport in transports]
        self._model = model
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        self._clock = itertools.count(1)

    @contextlib.contextmanager
    def endpoint(self, tried: Sequence[Endpoint]) -> Iterator[Endpoint]:
        """The server for a request, counted as busy with it for as long as the block lasts.

        Args:
            tried: Servers that this request has been refused by, taken only where no other is left.
        """
        with self._lock:
            chosen = min(
                self._endpoints,
                key=lambda e: (e in tried, e.down, e.outstanding, e.last_used),
            )
            chosen.outstanding += 1
            chosen.last_used = next(self._clock)
        try:
            yield chosen
        finally:
            with self._lock:
                chosen.outstanding -= 1

    @property
    def size(self) -> int:
        """Number of servers."""
        return len(self._endpoints)

    def any_ready(self) -> bool:
        """Whether some server has the model ready."""
        return any(endpoint.transport.ready(self._model) for endpoint in self._endpoints)

    def lost(self, endpoint: Endpoint) -> None:
        """Takes a server out until its model is ready again."""
        with self._lock:
            endpoint.down = True
            if self._watcher is None and not self._closed.is_set():
                self._watcher = threading.Thread(
                    target=self._watch, name="gnnscript-client", daemon=True
                )
                self._watcher.start()

    def _watch(self) -> None:
        while not self._closed.wait(_PROBE_INTERVAL):
            for endpoint in [e for e in self._endpoints if e.down]:
                if endpoint.transport.ready(self._model):
                    endpoint.down = False
            with self._lock:
                if not any(e.down for e in self._endpoints):
                    self._watcher = None
                    return

    def close(self) -> None:
        """Closes the connections."""
        self._closed.set()
        with self._lock:
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.join()
        for endpoint in self._endpoints:
            endpoint.transport.close()
