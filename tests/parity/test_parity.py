"""A sample of `make parity`, and a check that it can fail."""

import dataclasses
from collections.abc import Iterator

import httpx
import pytest

from models.features.inputs import Numeric
from tests.parity.check import Proof, prove, stage
from tests.parity.models import RECIPES, Known
from tests.parity.ways import WAYS, json_rows

pytestmark = pytest.mark.slow

SEED, TABLES = 5, 200


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, list[Known]]]:
    with stage(tmp_path_factory.mktemp("parity")) as found:
        yield found


def last(proofs: Iterator[Proof]) -> Proof:
    *_, proof = proofs
    return proof


def test_every_way_answers_what_training_computes(staged: tuple[httpx.Client, list[Known]]) -> None:
    proof = last(prove(*staged, seed=SEED, numbers=range(TABLES)))
    assert proof.failures[:5] == []
    assert (proof.tables, len(RECIPES) >= 20) == (TABLES, True)
    # Each way can express many of the tables, and some of their rows are errors.
    for name, tally in proof.ways.items():
        assert tally.tables > TABLES / 10, name
    assert proof.ways["JSON rows"].errors > 10
    assert proof.ways["JSON rows"].rows == proof.rows


def test_a_skew_between_training_and_predicting_is_found(
    staged: tuple[httpx.Client, list[Known]],
) -> None:
    """A mean that differs by a thousandth of a standard deviation."""
    client, models = staged
    (known,) = (known for known in models if known.name == "numbers-mlp")
    first, *others = known.features.inputs
    assert isinstance(first, Numeric)
    moved = dataclasses.replace(first, center=first.center + 1e-3 * first.std)
    features = dataclasses.replace(known.features, inputs=(moved, *others))
    skewed = dataclasses.replace(known, features=features)
    proof = last(prove(client, [skewed], seed=SEED, numbers=range(20)))
    assert len(proof.failures) > 20


def test_a_lost_row_and_a_lost_warning_are_found(
    staged: tuple[httpx.Client, list[Known]],
) -> None:
    def loses_rows(client: httpx.Client, sample: object) -> object:
        return json_rows(client, sample)[1:]  # type: ignore[arg-type]

    def says_nothing(client: httpx.Client, sample: object) -> object:
        answers = json_rows(client, sample)  # type: ignore[arg-type]
        return [dataclasses.replace(answer, codes=frozenset()) for answer in answers]

    for way in (loses_rows, says_nothing):
        ways = {"bad": way}
        proof = last(prove(*staged, seed=SEED, numbers=range(30), ways=ways))  # type: ignore[arg-type]
        assert len(proof.failures) > 10
    assert "bad" not in WAYS
