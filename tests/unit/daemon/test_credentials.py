"""Where S3 keys are found, and that none of them is shown."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from forebayd.config import CredentialsConfig
from forebayd.errors import AccessDeniedError, ConfigError
from forebayd.origin.credentials import Keys, RefreshedKeys, find

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def keys_file(path: Path, section: str, key: str) -> None:
    text = f"[{section}]\naws_access_key_id = {key}\naws_secret_access_key = hidden\n"
    path.write_text(text, encoding="utf-8")


def found(config: CredentialsConfig) -> Keys | RefreshedKeys:
    return asyncio.run(find(config))


def test_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")

    assert found(CredentialsConfig()) == Keys("access", "hidden", "token")


def test_named_variables_win_over_the_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("MY_ACCESS", "mine")
    monkeypatch.setenv("MY_SECRET", "hidden too")

    assert found(CredentialsConfig(None, "MY_ACCESS", "MY_SECRET")) == Keys("mine", "hidden too")


def test_named_variable_that_is_not_set_is_told() -> None:
    with pytest.raises(ConfigError, match="'MY_ACCESS', but no such variable"):
        found(CredentialsConfig(None, "MY_ACCESS", "MY_SECRET"))


def test_profile_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    keys_file(tmp_path / "credentials", "ceph", "of-profile")

    assert found(CredentialsConfig(profile="ceph")) == Keys("of-profile", "hidden")


def test_file_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    keys_file(tmp_path / "mine", "default", "of-file")

    assert found(CredentialsConfig(file=tmp_path / "mine")) == Keys("of-file", "hidden")


def test_keys_that_end_are_asked_for_again(tmp_path: Path) -> None:
    script = tmp_path / "keys.sh"
    script.write_text(
        'echo \'{"Version": 1, "AccessKeyId": "of-process", "SecretAccessKey": "hidden",'
        ' "SessionToken": "t", "Expiration": "2999-01-01T00:00:00Z"}\'\n',
        encoding="utf-8",
    )
    (tmp_path / "config").write_text(
        f"[profile made]\ncredential_process = sh {script}\n", encoding="utf-8"
    )

    async def ask() -> object:
        keys = await find(CredentialsConfig(profile="made"))
        assert isinstance(keys, RefreshedKeys)
        return (await keys())["access_key_id"]

    assert asyncio.run(ask()) == "of-process"


def test_no_keys_at_all_is_told() -> None:
    with pytest.raises(AccessDeniedError, match="set AWS_ACCESS_KEY_ID"):
        found(CredentialsConfig())


def test_missing_profile_is_told() -> None:
    with pytest.raises(AccessDeniedError, match="nobody"):
        found(CredentialsConfig(profile="nobody"))


def test_keys_are_not_shown() -> None:
    assert repr(Keys("access", "hidden", "token")) == "Keys()"
