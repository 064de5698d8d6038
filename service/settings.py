"""Settings: one frozen table of name, default and help, read once from `DESCENT_…` variables.

`descent serve --help` and the table in the README are made from this class.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1024 * 1024
NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"  # of a model or an alias
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Settings(BaseSettings):
    """Every setting; the variable is the name in capitals with the prefix `DESCENT_`."""

    model_config = SettingsConfigDict(
        env_prefix="DESCENT_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    data_dir: Path = Field(Path("data"), description="Folder of the embedded database and blobs.")
    database_url: str = Field(
        "", description="SQLAlchemy URL; empty means SQLite in the data folder."
    )
    blob_url: str = Field(
        "",
        description="`file:///folder` or `s3://bucket/prefix` for datasets and checkpoints;"
        " empty: the data folder.",
    )
    api_key: SecretStr | None = Field(
        None, description="A key that is always accepted, at least 16 characters long."
    )
    root_path: str = Field("", description="Path prefix under which a reverse proxy serves this.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Addresses, comma-separated, whose X-Forwarded-… headers are believed."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names, comma-separated, that requests may name; loopback names always.",
    )
    workers: int = Field(1, ge=1, le=64, description="Runs that one worker trains at a time.")
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="Least level that is logged."
    )

    max_json_bytes: int = Field(1 * MIB, ge=1024, description="Largest JSON request body.")
    max_predict_bytes: int = Field(
        16 * MIB, ge=1024, description="Largest body of a prediction request."
    )
    max_predict_rows: int = Field(10_000, ge=1, description="Most rows of a prediction request.")
    max_bundle_bytes: int = Field(
        256 * MIB, ge=1024, description="Largest bundle of a model that is imported, unpacked too."
    )
    predict_threads: int = Field(
        4, ge=1, le=64, description="Large prediction requests that are computed at a time."
    )
    predict_queue: int = Field(
        256, ge=0, description="Prediction requests that may wait for one of these threads."
    )
    predict_timeout_s: float = Field(
        30, gt=0, description="Time from the whole request within which a prediction is answered."
    )
    predict_cache_models: int = Field(
        1000, ge=1, description="Models that are kept in memory to predict with."
    )
    predict_cache_bytes: int = Field(
        256 * MIB, ge=0, description="Memory of the models that are kept to predict with."
    )
    invocations_model: str = Field(
        "",
        pattern=f"^({NAME}(@{NAME}|/[1-9][0-9]{{0,8}})?)?$",
        description="What `/invocations` asks: `model`, `model@alias` or `model/version`.",
    )
    max_upload_bytes: int = Field(
        5 * 1024 * MIB, ge=1024, description="Largest dataset, after decompression."
    )
    max_json_table_bytes: int = Field(
        32 * MIB, ge=1024, description="Largest dataset that is sent as one JSON document."
    )
    max_gzip_ratio: int = Field(200, ge=1, description="Largest ratio of a gzip-compressed upload.")
    max_columns: int = Field(10_000, ge=1, description="Most columns of a dataset.")
    parse_memory_bytes: int = Field(
        512 * MIB, ge=256 * MIB, description="Memory of the process that parses an upload."
    )
    parse_timeout_s: float = Field(600, gt=0, description="Time within which an upload is parsed.")
    ready_disk_bytes: int = Field(
        64 * MIB, ge=0, description="Free space in the data folder below which nothing is accepted."
    )

    idempotency_lease_s: float = Field(
        60, gt=0, description="Time after which the Idempotency-Key of a lost request is free."
    )
    lease_s: float = Field(20, gt=0, description="Time after which a silent worker loses its run.")
    renew_s: float = Field(5, gt=0, description="Time between two renewals of a lease.")
    sweep_s: float = Field(2, gt=0, description="Time between two looks for lost runs.")
    poll_s: float = Field(0.25, gt=0, description="Time between two looks for queued runs.")
    grace_s: float = Field(
        8, gt=0, description="Time that training processes get to save their state at a stop."
    )
    stall_s: float = Field(
        300, ge=2, description="Time without a sign of progress after which a training is killed."
    )

    checkpoint_s: float | None = Field(
        None, gt=0, description="Time between two checkpoints; empty weighs their cost."
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
        """The folder of the blobs; None where they are elsewhere, as `storage` reads it."""
        if not self.blob_url:
            return self.data_dir.absolute() / "blobs"
        if self.blob_url.startswith("file:///"):
            return Path(self.blob_url.removeprefix("file://"))
        return None

    @property
    def invocations(self) -> tuple[str, str, int]:
        """The model that `/invocations` asks, with its alias or the number of its version."""
        name, _, alias = self.invocations_model.partition("@")
        name, _, number = name.partition("/")
        return name, alias, int(number or 0)

    @property
    def scratch_dir(self) -> Path:
        """Where uploads and attempts keep their temporary files."""
        return self.data_dir.absolute() / "scratch"
