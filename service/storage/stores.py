"""Opens the blob store that the settings name."""

import os
import re

from service.settings import Settings
from service.storage.blobs import BlobStore, LocalBlobs
from service.storage.s3 import S3Blobs

BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_=.-]+)*)/?")


def open_store(settings: Settings) -> BlobStore:
    """Return the store, and make its folder. S3 reads its keys and region from AWS_… variables.

    Raises ValueError for a `blob_url` that names neither a folder nor a bucket.
    """
    if folder := settings.blob_dir:
        return LocalBlobs(folder)
    found = BUCKET.fullmatch(settings.blob_url)
    if found is None or {".", ".."} & set(found[2].split("/")):
        raise ValueError(
            f"blob_url must be file:///folder or s3://bucket/prefix, got {settings.blob_url!r}"
        )
    return S3Blobs(found[1], found[2].strip("/"), os.environ)
