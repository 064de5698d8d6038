"""Logs: one JSON object a line on stderr, ours and the libraries' alike. Never a key or a body."""

import logging
import sys
from typing import Any, TextIO

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


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to stderr, or to `stream`. To be called once, at its start."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
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
