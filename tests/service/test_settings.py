"""Settings: read once, from variables that all have a name, a default and a description."""

import pytest
from pydantic import ValidationError

from service.__main__ import read_settings, settings_help
from service.settings import Settings


def test_a_variable_that_is_no_setting_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        ValueError, match=r"DESCENT_PROT is not a setting\. Did you mean DESCENT_PORT"
    ):
        read_settings({"DESCENT_PROT": "1"})


def test_the_variables_of_the_client_are_not_in_the_way() -> None:
    assert read_settings({"DESCENT_URL": "http://x", "HOME": "/"}).port == 8000


def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCENT_PORT", "70000")
    with pytest.raises(ValueError, match=r"DESCENT_PORT: .* got '70000'"):
        read_settings({"DESCENT_PORT": "70000"})


def test_a_key_that_is_refused_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCENT_API_KEY", "hunter2")
    with pytest.raises(ValueError, match="at least 16") as caught:
        read_settings({})
    assert "hunter2" not in str(caught.value)


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCENT_ALLOWED_HOSTS", "a.example, b.example,")
    assert Settings().allowed_hosts == ("a.example", "b.example")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_every_setting_is_explained() -> None:
    text = settings_help()
    for name, field in Settings.model_fields.items():
        assert f"DESCENT_{name.upper()}" in text
        assert field.description
        assert field.description.endswith(".")


def test_a_lease_outlives_two_missed_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCENT_LEASE_S", "5")
    with pytest.raises(ValueError, match="three times renew_s"):
        read_settings({})
