"""Logs: one JSON object a line on stderr, ours and the libraries' alike. Never a key or a body."""

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # As text: the structured form would hold local variables, and with them keys and data.
    structlog.processors.format_exc_info,
]

_access = logging.getLogger("service.access")


class _Handler(logging.StreamHandler[TextIO]):
    """Writes records, and lines that are rendered already: all those of a moment together.

    To write is a call of the system, and another thread may take the interpreter meanwhile.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Have a line written before the event loop waits again; without a loop at once."""
        self.acquire()
        self._lines.append(line)
        is_first = len(self._lines) == 1
        self.release()
        if is_first:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        self.flush()  # what was logged earlier stands above it
        super().emit(record)

    def flush(self) -> None:
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if lines:
                self.stream.write("\n".join([*lines, ""]))
            super().flush()
        except (OSError, ValueError):
            pass  # nobody is refused because the log is full or gone
        finally:
            self.release()

    def close(self) -> None:
        self.flush()
        super().close()


def access(request_id: str, **fields: object) -> None:
    """Log a request. There is one such line for each, so it is written without structlog."""
    if not _access.isEnabledFor(logging.INFO):
        return
    fields["event"], fields["request_id"] = "request", request_id
    fields["level"], fields["logger"] = "info", _access.name
    fields["timestamp"] = datetime.now(UTC)
    line = orjson.dumps(fields, option=orjson.OPT_UTC_Z)
    # Lines are ASCII, whatever the stream is; signs that could steer a terminal are escaped anyway.
    text = line.decode() if line.isascii() else json.dumps(orjson.loads(line))
    for handler in logging.root.handlers:
        if isinstance(handler, _Handler):
            handler.add(text)


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to stderr, or to `stream`. To be called once, at its start."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=True, default=str),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # The access line is ours; migrations say at "info" what `migrate` reports itself.
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))
