"""The client."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

from gnnscript.client._balance import Balancer, Endpoint
from gnnscript.client._errors import (
    ClientError,
    RequestTimeoutError,
    ServerUnavailableError,
    UnknownModelError,
)
from gnnscript.client._signature import Signature
from gnnscript.client._transport import Transport, connect

__all__ = ["Client"]

_FIRST_PAUSE = 0.1


class Client:
    """A model on a server, called as the model is: ``client(x, edge_index)``.

    Arrays go in and come out as numpy's; whatever numpy takes as an array goes in, tensors
    included. Integers are converted to the model's dtype where they fit, and so are floating-point
    numbers. Tuples and dictionaries of arrays are taken where the model takes them. One client may
    be called from several threads, and used in a process that was forked or given a copy by pickle,
    which have connections of their own.

    Args:
        url: The server, such as ``http://host:8000``, ``host:8000`` or ``grpc://host:8001``; or
            several, of which each request goes to the one with the fewest outstanding requests. A
            server that fails is left out until its model is ready again, and what it has not
            answered is sent to another.
        model: The name of the model in the model repository.
        version: The version of it; None leaves the choice to the server, which takes the newest.
        timeout: Seconds that one call may take, retries included.
        retries: How often a request is sent again to all servers where none is available, after
            0.1 s first and then twice as long each time; 6 outlast a model that is loaded again.
        workers: How many requests :meth:`submit` keeps outstanding at most.

    Raises:
        ValueError: A URL cannot be read.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        model: str,
        *,
        version: int | None = None,
        timeout: float = 60.0,
        retries: int = 6,
        workers: int = 8,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ValueError("expected the URL of a server, got none")
        if timeout <= 0:
            raise ValueError(f"expected a timeout above 0 seconds, got {timeout}")
        self.model = model
        self.version = version
        self._urls = urls
        self._timeout = timeout
        self._retries = retries
        self._workers = workers
        self._known: Signature | None = None
        self._reset()
        self._servers()  # a URL that cannot be read is told now
        _clients.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._balancer: Balancer | None = None
        self._executor: ThreadPoolExecutor | None = None

    def _servers(self) -> Balancer:
        with self._lock:
            if self._balancer is None:
                self._balancer = Balancer(
                    [connect(one, self.version) for one in self._urls], self.model
                )
            return self._balancer

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_balancer", "_executor")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()
        _clients.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model.

        Args:
            *args: The arguments of the model's ``forward``.
            **kwargs: The same by name.

        Returns:
            What the model returns: an array, a tuple of arrays, or a dictionary of them.

        Raises:
            InvalidInputError: The arguments do not fit the model.
            UnknownModelError: The server has no such model.
            ServerUnavailableError: No server can be reached.
            RequestTimeoutError: There was no answer in time.
            ServerFailureError: The server failed.
        """
        deadline = time.monotonic() + self._timeout
        signature = self._signature(deadline)
        inputs = signature.bind(args, kwargs)

        def infer(transport: Transport, left: float) -> Any:
            return transport.infer(self.model, inputs, left)

        return signature.result(self._send(infer, deadline))

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs the model while the caller goes on.

        Args:
            *args: As for a call. The arrays must not be changed until the result is there.
            **kwargs: Likewise.

        Returns:
            A future, whose ``result()`` is what a call returns, or raises what it raises.
        """
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._workers, "gnnscript-client")
            return self._executor.submit(self, *args, **kwargs)

    def ready(self) -> bool:
        """Whether a server answers and has the model ready."""
        return self._servers().any_ready()

    def close(self) -> None:
        """Waits for what was submitted, and closes the connections; a later call opens others."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()
        with self._lock:
            balancer, self._balancer = self._balancer, None
        if balancer is not None:
            balancer.close()

    def _signature(self, deadline: float) -> Signature:
        if self._known is None:

            def config(transport: Transport, left: float) -> Signature:
                return Signature(self.model, transport.config(self.model, left))

            self._known = self._send(config, deadline)
        return self._known

    def _send(self, action: Any, deadline: float) -> Any:
        """Lets a server do something; where it is lost, another, and where all are, again."""
        pause = _FIRST_PAUSE
        balancer = self._servers()
        for turn in range(self._retries + 1):
            tried: list[Endpoint] = []
            failures: list[ClientError] = []
            while len(tried) < balancer.size:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                with balancer.endpoint(tried) as endpoint:
                    tried.append(endpoint)
                    try:
                        return action(endpoint.transport, left)
                    except (ServerUnavailableError, UnknownModelError) as error:
                        # Another server may have the model; of one alone, it is the answer.
                        failures.append(error)
                        if isinstance(error, ServerUnavailableError):
                            balancer.lost(endpoint)
                    except RequestTimeoutError:
                        balancer.lost(endpoint)
                        raise
            if failures and all(isinstance(error, UnknownModelError) for error in failures):
                raise failures[0]
            if turn == self._retries or time.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
            pause *= 2
        if not failures:
            raise RequestTimeoutError(f"no server was available within {self._timeout:g} s")
        reasons = "; ".join(str(error) for error in failures)
        raise ServerUnavailableError(
            f"no server is available for '{self.model}' ({reasons}); start one, or compare the URL"
        ) from failures[-1]


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _forget_connections() -> None:
    """In a process that was forked: its parent goes on to use the connections and threads."""
    for client in _clients:
        client._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)
