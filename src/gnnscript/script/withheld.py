"""Keeps to itself what torch says of an attempt that is made again."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["withheld"]

# Where torch says why an export failed, beside the graph so far that goes to the standard error.
_LOGGERS = ("torch.export._trace", "torch.fx.experimental.symbolic_shapes")


@contextmanager
def withheld() -> Iterator[None]:
    """Withholds what this thread has torch say of an export, unless the block succeeds."""
    before, own = sys.stderr, _OwnThread(sys.stderr)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    sys.stderr = own
    for logger in loggers:
        logger.addFilter(own)
    try:
        yield
    except BaseException:
        own.forget()
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(own)
        sys.stderr = before
        own.tell()


class _OwnThread(logging.Filter):
    """The standard error, and a filter of messages, to all but one thread."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._said = io.StringIO()
        self._records: list[logging.LogRecord] = []
        self._stream = stream
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        own = threading.get_ident() == self._thread
        return int((self._said if own else self._stream).write(text))

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        self._records.append(record)
        return False

    def forget(self) -> None:
        self._said = io.StringIO()
        self._records.clear()

    def tell(self) -> None:
        self._stream.write(self._said.getvalue())
        for record in self._records:
            logging.getLogger(record.name).handle(record)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
