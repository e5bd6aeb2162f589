"""Where S3 keys come from: named variables, a file, a profile, or the usual AWS chain.

The chain is botocore's (environment, ~/.aws files, SSO, processes, roles, instance metadata), with
its refreshing. Plain keys in the environment are taken without it, since importing it costs
half a second and tens of megabytes. Keys are never logged and are in no ``repr``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from forebayd.errors import AccessDeniedError, ConfigError

if TYPE_CHECKING:
    from obstore.store import S3Credential

    from forebayd.config import CredentialsConfig

# botocore renews what ends in less than 15 minutes whenever it is asked; so ask more often.
_ASK_AGAIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Keys:
    """A fixed set of keys."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class RefreshedKeys:
    """Keys that end and are renewed; obstore calls it for the present ones."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials  # Any: botocore ships no types

    async def __call__(self) -> S3Credential:
        frozen = await self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _ASK_AGAIN,
        }


def plain_keys(config: CredentialsConfig) -> Keys | None:
    """Return the keys that variables hold, or None if the AWS chain has to find them.

    Raises ConfigError, naming the variable, if one that was configured is not set.
    """
    if config.access_key_env or config.secret_key_env:
        return Keys(
            _variable("access_key_env", config.access_key_env),
            _variable("secret_key_env", config.secret_key_env),
            _variable("session_token_env", config.session_token_env)
            if config.session_token_env
            else None,
        )
    if config.profile or config.file or os.environ.get("AWS_PROFILE"):
        return None
    access_key = os.environ.get("AWS_ACCESS_KEY_ID")
    secret_key = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if access_key and secret_key:
        return Keys(access_key, secret_key, os.environ.get("AWS_SESSION_TOKEN") or None)
    return None


def session_of(config: CredentialsConfig) -> Any:
    """Return the AWS session (aiobotocore ships no types) that finds the keys."""
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]  # ships no stubs

    session = AioSession(profile=config.profile)
    if config.file:
        session.set_config_variable("credentials_file", str(config.file))
        # With a file configured, keys of the environment must not win over it.
        session.get_component("credential_provider").remove("env")
    keys = plain_keys(config)
    if keys is not None:
        session.set_credentials(keys.access_key, keys.secret_key, keys.token)
    return session


async def find(config: CredentialsConfig) -> Keys | RefreshedKeys:
    """Return the keys, by variables or by the chain. Raises AccessDeniedError if there are none."""
    keys = plain_keys(config)
    if keys is not None:
        return keys
    from aiobotocore.credentials import (  # type: ignore[import-untyped]  # no stubs
        AioRefreshableCredentials,
    )
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # ships no stubs

    try:
        credentials = await session_of(config).get_credentials()
    except BotoCoreError as error:
        raise AccessDeniedError(f"no S3 credentials: {error}") from error
    if credentials is None:
        raise AccessDeniedError(
            "no S3 credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a "
            "profile or a file in the origin's credentials, or set anonymous = true"
        )
    if isinstance(credentials, AioRefreshableCredentials):
        return RefreshedKeys(credentials)
    return Keys(credentials.access_key, credentials.secret_key, credentials.token)


def _variable(setting: str, name: str | None) -> str:
    if not name:
        raise ConfigError(f"credentials: {setting} is missing; name the variable that holds it")
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"credentials: {setting} = {name!r}, but no such variable is set")
    return value
