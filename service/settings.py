"""Settings: one frozen table of name, default and help, read once from `DESCENT_…` variables.

`descent serve --help` prints this class. The settings tables in the README and in
`docs/settings.md` repeat it, and tests compare them with it.
"""

import importlib.metadata
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1024 * 1024
NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"  # the name of a model or an alias
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Settings(BaseSettings):
    """Every setting. Its variable is the name in capitals with the prefix `DESCENT_`."""

    model_config = SettingsConfigDict(
        env_prefix="DESCENT_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    data_dir: Path = Field(
        Path("data"), description="Folder of the embedded database, the blobs and scratch files."
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL; empty means SQLite in the data folder."
    )
    blob_url: str = Field(
        "",
        description="Blob store: `file:///folder` or `s3://bucket/prefix`; empty means the data"
        " folder.",
    )
    api_key: SecretStr | None = Field(
        None, description="An API key that is always accepted; at least 16 characters."
    )
    root_path: str = Field(
        "", description="Path under which a reverse proxy publishes the service."
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Proxy addresses, comma-separated, whose X-Forwarded-… headers are trusted."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Accepted Host headers, comma-separated; loopback names are always accepted.",
    )
    workers: int = Field(
        1, ge=1, le=64, description="Runs that one worker trains at the same time."
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="Lowest level that is logged."
    )

    max_connections: int | None = Field(
        None,
        ge=1,
        description="Most open connections; empty: half of the limit of open files.",
    )
    max_head_bytes: int = Field(
        64 * 1024, ge=8 * 1024, description="Largest URL with headers, and largest trailers."
    )
    head_timeout_s: float = Field(
        10, gt=0, description="Time limit for the head of a request, and for its trailers."
    )
    body_timeout_s: float = Field(
        30, gt=0, description="Time without a byte after which the body of a request is given up."
    )

    max_json_bytes: int = Field(1 * MIB, ge=1024, description="Largest JSON request body.")
    max_predict_bytes: int = Field(
        16 * MIB, ge=1024, description="Largest body of a prediction request."
    )
    max_predict_rows: int = Field(10_000, ge=1, description="Most rows of a prediction request.")
    max_bundle_bytes: int = Field(
        256 * MIB, ge=1024, description="Largest imported bundle, packed and unpacked."
    )
    predict_threads: int = Field(
        4, ge=1, le=64, description="Threads that compute large prediction requests."
    )
    predict_queue: int = Field(
        256, ge=0, description="Prediction requests that may wait for one of these threads."
    )
    predict_timeout_s: float = Field(
        30, gt=0, description="Time limit of a prediction, from the last byte of its request."
    )
    predict_cache_models: int = Field(
        1000, ge=1, description="Most models in the prediction cache."
    )
    predict_cache_bytes: int = Field(256 * MIB, ge=0, description="Memory of the prediction cache.")
    invocations_model: str = Field(
        "",
        pattern=f"^({NAME}(@{NAME}|/[1-9][0-9]{{0,8}})?)?$",
        description="Model behind `/invocations`: `model`, `model@alias` or `model/version`.",
    )
    max_upload_bytes: int = Field(
        5 * 1024 * MIB, ge=1024, description="Largest upload, after decompression."
    )
    max_json_table_bytes: int = Field(
        32 * MIB, ge=1024, description="Largest upload in the form of one JSON document."
    )
    max_gzip_ratio: int = Field(
        200, ge=1, description="Largest compression ratio of a gzip upload."
    )
    max_columns: int = Field(10_000, ge=1, description="Most columns of a dataset.")
    parse_memory_bytes: int = Field(
        512 * MIB, ge=256 * MIB, description="Memory limit of the process that parses an upload."
    )
    parse_timeout_s: float = Field(600, gt=0, description="Time limit for parsing an upload.")
    ready_disk_bytes: int = Field(
        64 * MIB, ge=0, description="Free space in the data folder below which uploads are refused."
    )

    training_memory_bytes: int | None = Field(
        None,
        ge=256 * MIB,
        description="Memory that a training process may take before it reads its rows from files;"
        " empty: most of what is free.",
    )

    idempotency_lease_s: float = Field(
        60,
        gt=0,
        description="Time after which the Idempotency-Key of a lost request can be used again.",
    )
    lease_s: float = Field(20, gt=0, description="Time after which a silent worker loses its jobs.")
    renew_s: float = Field(5, gt=0, description="Time between two renewals of the leases.")
    sweep_s: float = Field(2, gt=0, description="Time between two searches for lost jobs.")
    poll_s: float = Field(0.25, gt=0, description="Time between two searches for queued jobs.")
    grace_s: float = Field(
        8, gt=0, description="Time that training processes get to save their state at a shutdown."
    )
    stall_s: float = Field(
        300, ge=2, description="Time without progress after which a training process is killed."
    )

    engine: Literal["auto", "kernel", "chunked", "autograd"] = Field(
        "auto",
        description=(
            "Engine of trainings that it can do: kernel, chunked or autograd; auto takes the"
            " fastest."
        ),
    )
    checkpoint_s: float | None = Field(
        None,
        gt=0,
        description="Time between two checkpoints; empty: as often as their cost allows.",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: object) -> object:
        if isinstance(values, dict):
            for name in ("trusted_proxies", "allowed_hosts"):
                if isinstance(values.get(name), str):
                    parts = (part.strip() for part in values[name].split(","))
                    values[name] = tuple(part for part in parts if part)
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.api_key and len(self.api_key.get_secret_value()) < 16:
            raise ValueError("api_key is too short to be safe: use at least 16 characters")
        if self.lease_s < 3 * self.renew_s:
            raise ValueError(
                f"lease_s must be at least three times renew_s, got {self.lease_s} and"
                f" {self.renew_s}"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK

    @property
    def is_embedded(self) -> bool:
        """Whether the database is SQLite in the data folder, which `serve` migrates itself."""
        return self.resolved_database_url.startswith("sqlite")

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'descent.sqlite3'}"

    @property
    def blob_dir(self) -> Path | None:
        """The folder of the blobs; None if the blob store is not a folder."""
        if not self.blob_url:
            return self.data_dir.absolute() / "blobs"
        if self.blob_url.startswith("file:///"):
            return Path(self.blob_url.removeprefix("file://"))
        return None

    @property
    def invocations(self) -> tuple[str, str, int]:
        """The model behind `/invocations`, with its alias or the number of its version."""
        name, _, alias = self.invocations_model.partition("@")
        name, _, number = name.partition("/")
        return name, alias, int(number or 0)

    @property
    def scratch_dir(self) -> Path:
        """The folder of the temporary files of uploads and attempts."""
        return self.data_dir.absolute() / "scratch"


def version() -> str:
    try:
        return importlib.metadata.version("descent")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"  # a source tree that was never installed
