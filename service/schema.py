"""Imports every table, so that the metadata is complete for migrations and the collector."""

import service.access.tables
import service.batch.tables
import service.datasets.tables
import service.http.idempotency
import service.jobs.tables
import service.registry.tables
import service.runs.tables
import service.storage.tables  # noqa: F401
