"""Export of models to bundles and ONNX files, and import of bundles, over HTTP."""

import io
import json
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from sqlalchemy import Engine

from models.export import bundle
from service.errors import Busy
from service.exports.routes import Transfers
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from tests.service import trained
from tests.service.trained import Trained

MODELS = "/api/v1/models"
ARTIFACT = f"{MODELS}/boats/versions/1/artifact"
COPY = f"{MODELS}/copy/versions"
ZIP = {"Content-Type": "application/zip"}
ROWS = [{"Age": 30, "Port": "Cherbourg"}, {"Age": None, "Port": "Atlantis"}, {}]


def exported(client: httpx.Client, path: str = ARTIFACT) -> bytes:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.content


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def sealed(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return the members with a matching manifest, as a forger would write it."""
    rest = {name: content for name, content in members.items() if name != "manifest.json"}
    manifest = bundle._manifest(rest)  # noqa: SLF001  the forger has our sources
    return {**rest, "manifest.json": json.dumps(manifest).encode()}


def predicted(client: httpx.Client, model: str) -> list[dict[str, Any]]:
    answer = client.post(f"{MODELS}/{model}/predict", json={"rows": ROWS})
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


# ---- export -------------------------------------------------------------------------------------


def test_a_bundle_is_a_zip_with_everything_to_predict(client: httpx.Client, boats: Trained) -> None:
    answer = client.get(ARTIFACT)
    assert answer.headers["content-type"] == "application/zip"
    assert 'filename="boats-1.zip"' in answer.headers["content-disposition"]
    assert answer.headers["content-length"] == str(len(answer.content))
    members = members_of(answer.content)
    assert list(members) == list(bundle.MEMBERS)
    training = json.loads(members["training.json"])
    assert (training["model"], training["run"]) == ("boats", boats.run_id)
    assert training["dataset"]["version"] == 1


def test_the_same_version_is_the_same_file_and_not_sent_twice(
    client: httpx.Client, boats: Trained
) -> None:
    for kind in ("bundle", "onnx"):
        path = f"{ARTIFACT}?format={kind}"
        answer = client.get(path)
        assert exported(client, path) == answer.content
        etag = answer.headers["etag"]
        again = client.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(ARTIFACT).headers["etag"] != etag, "each format is a file of its own"


def test_onnxruntime_answers_what_the_service_answers(client: httpx.Client, boats: Trained) -> None:
    answer = client.get(ARTIFACT, params={"format": "onnx"})
    assert 'filename="boats-1.onnx"' in answer.headers["content-disposition"]
    run = onnxruntime.InferenceSession(answer.content, providers=["CPUExecutionProvider"])
    feed = {
        "Age": np.array([[30.0], [np.nan], [np.nan]]),
        "Port": np.array([["Cherbourg"], ["Atlantis"], [""]], dtype=object),
    }
    values, shares = run.run(["value", "probabilities"], feed)
    wanted = predicted(client, "boats")
    assert values[:, 0].tolist() == [row["value"] for row in wanted]
    expected = [list(row["probabilities"].values()) for row in wanted]
    assert np.abs(shares - expected).max() < 1e-5
    assert run.get_modelmeta().custom_metadata_map["model"] == "boats"


def test_what_is_not_there_cannot_be_downloaded(client: httpx.Client, boats: Trained) -> None:
    assert client.get(f"{MODELS}/boats/versions/9/artifact").status_code == 404
    assert client.get(ARTIFACT, params={"format": "pickle"}).status_code == 422


def test_a_damaged_checkpoint_is_no_artifact(
    client: httpx.Client, blobs: LocalBlobs, tmp_path: Path, boats: Trained
) -> None:
    path = blobs.fetch(boats.sha256, tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    for kind in ("bundle", "onnx"):
        answer = client.get(ARTIFACT, params={"format": kind})
        assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_corrupt")


# ---- import -------------------------------------------------------------------------------------


def test_a_bundle_comes_back_as_a_version_with_its_origin(
    client: httpx.Client, boats: Trained
) -> None:
    content = exported(client)
    made = client.post(COPY, content=content, headers=ZIP)
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"{COPY}/1"
    body = made.json()
    assert (body["run_id"], body["checkpoint_id"], body["dataset"]) == (None, None, None)
    origin = body["imported"]
    assert (origin["model"], origin["version"], origin["run"]) == ("boats", 1, boats.run_id)
    known = client.get(f"{MODELS}/boats/versions/1").json()
    assert origin["dataset"]["id"] == known["dataset"]["id"]
    assert client.get(f"{COPY}/1").json() == body
    assert client.get(f"{MODELS}/copy").json()["latest_version"] == 1
    assert predicted(client, "copy") == predicted(client, "boats")


def test_an_imported_model_is_exported_again_with_its_origin(
    client: httpx.Client, boats: Trained
) -> None:
    client.post(COPY, content=exported(client), headers=ZIP)
    first = members_of(exported(client))
    again = members_of(exported(client, f"{COPY}/1/artifact"))
    assert again["model.safetensors"] == first["model.safetensors"]
    assert again["golden.json"] == first["golden.json"]
    assert json.loads(again["training.json"])["run"] == boats.run_id


def test_a_linear_model_brings_its_parameters(client: httpx.Client, scores: Trained) -> None:
    content = exported(client, f"{MODELS}/scores/versions/1/artifact")
    client.post(COPY, content=content, headers=ZIP)
    assert client.get(f"{COPY}/1/parameters").json() == trained.SCORES_PARAMETERS


def test_a_bundle_is_imported_once_for_each_key(client: httpx.Client, boats: Trained) -> None:
    content, key = exported(client), ZIP | {"Idempotency-Key": "once"}
    made = client.post(COPY, content=content, headers=key)
    again = client.post(COPY, content=content, headers=key)
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.json()) == (201, made.json())
    assert client.get(f"{MODELS}/copy").json()["latest_version"] == 1
    other = client.post(COPY, content=content + b" ", headers=key)
    assert other.json()["code"] == "idempotency_key_reused"


def test_a_refused_bundle_frees_its_key_and_leaves_no_model(
    client: httpx.Client, boats: Trained
) -> None:
    content, key = exported(client), ZIP | {"Idempotency-Key": "once"}
    assert client.post(COPY, content=content[:-9], headers=key).status_code == 422
    assert client.get(f"{MODELS}/copy").status_code == 404
    assert client.post(COPY, content=content, headers=key).status_code == 201


@pytest.mark.parametrize("name", bundle.MEMBERS)
def test_a_bundle_with_a_changed_member_is_refused(
    client: httpx.Client, boats: Trained, name: str
) -> None:
    members = members_of(exported(client))
    content = bytearray(members[name])
    content[len(content) // 2] ^= 1
    answer = client.post(COPY, content=packed({**members, name: bytes(content)}), headers=ZIP)
    assert answer.status_code == 422
    assert answer.json()["code"] in {"bundle_changed", "bundle_invalid"}


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", bytes(5000)])
def test_what_is_no_bundle_is_refused(client: httpx.Client, content: bytes) -> None:
    answer = client.post(COPY, content=content, headers=ZIP)
    assert (answer.status_code, answer.json()["code"]) == (422, "bundle_invalid")


def test_a_model_that_answers_something_else_is_refused(
    client: httpx.Client, boats: Trained
) -> None:
    members = members_of(exported(client))
    golden = json.loads(members["golden.json"])
    shares = golden["predictions"][0]["probabilities"]
    golden["predictions"][0]["probabilities"] = dict.fromkeys(shares, 0.5)
    members["golden.json"] = json.dumps(golden).encode()
    answer = client.post(COPY, content=packed(sealed(members)), headers=ZIP)
    assert (answer.status_code, answer.json()["code"]) == (422, "golden_mismatch")


def test_metrics_that_no_answer_could_tell_are_refused(
    client: httpx.Client, boats: Trained
) -> None:
    members = members_of(exported(client))
    training = json.loads(members["training.json"]) | {"metrics": {"importance": "much"}}
    forged = sealed({**members, "training.json": json.dumps(training).encode()})
    answer = client.post(COPY, content=packed(forged), headers=ZIP)
    assert (answer.status_code, answer.json()["code"]) == (422, "bundle_invalid")
    assert client.get(f"{MODELS}/copy").status_code == 404


def test_an_origin_that_would_fill_each_answer_is_refused(
    client: httpx.Client, boats: Trained
) -> None:
    members = members_of(exported(client))
    training = json.loads(members["training.json"]) | {"run": "r" * 2**20}
    forged = sealed({**members, "training.json": json.dumps(training).encode()})
    answer = client.post(COPY, content=packed(forged), headers=ZIP)
    assert (answer.status_code, answer.json()["code"]) == (422, "bundle_invalid")


def test_another_content_type_is_refused(client: httpx.Client) -> None:
    answer = client.post(COPY, content=b"{}", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_bundle_over_the_limit_is_refused(
    settings: Settings, serve: Any, engine: Engine, boats: Trained
) -> None:
    client = serve(settings.model_copy(update={"max_bundle_bytes": 4096}))
    for content in (exported(client), iter([exported(client)])):
        answer = client.post(COPY, content=content, headers=ZIP)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "DESCENT_MAX_BUNDLE_BYTES" in answer.json()["detail"]


def test_a_bundle_that_unpacks_to_more_than_the_limit_is_too_large(
    client: httpx.Client, boats: Trained
) -> None:
    members = members_of(exported(client)) | {"model_card.md": bytes(300 * 2**20)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    answer = client.post(COPY, content=file.getvalue(), headers=ZIP)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_transfer_that_gets_no_turn_is_told_to_come_again(
    settings: Settings, tmp_path: Path
) -> None:
    transfers = Transfers(settings, lambda: nullcontext(tmp_path), patience_s=0)
    with transfers.turn(), transfers.turn(), pytest.raises(Busy), transfers.turn():
        pytest.fail("a third turn")
