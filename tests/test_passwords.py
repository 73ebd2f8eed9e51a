"""Passwords and keys are refused where they would be recorded, and never repeated."""

from __future__ import annotations

import pytest

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.passwords import masked, refuse_password
from dmp_core.store import Workspace

SECRET = "hf_planted7"


@pytest.mark.parametrize(
    "setting",
    [
        f"prompts.generator={{kind: vllm, server_url: 'https://me:{SECRET}@host/v1'}}",
        f"prompts.generator={{kind: vllm, server_url: 'https://{SECRET}@host/v1'}}",
        f"prompts.generator={{kind: vllm, server_url: 'https://host/v1?api_key={SECRET}'}}",
        f"runtime={{task_runner: dask, cluster: 'tcp://me:{SECRET}@host:8786'}}",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(setting: str) -> None:
    with pytest.raises(InputError, match=r"(password|query)") as raised:
        load_config("smoke", None, [setting])
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("url", [f"ftp://me:{SECRET}@host/x", f"simplecache::https://{SECRET}@host/x"])
def test_a_workspace_s_address_holds_no_password(url: str) -> None:
    with pytest.raises(InputError, match="password") as raised:
        Workspace(url)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("url", ["s3://bucket/a:b@c", "sftp://me@host/x", "github://me:rooms@main/x", "/home/a:b@c"])
def test_other_addresses_are_left_alone(url: str) -> None:
    assert refuse_password(url, "") == masked(url) == url
