"""The snapshot of advisories answers as osv.dev does."""

from __future__ import annotations

import json
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.audit import by_package, read_snapshot, served


def advisory(identity: str, name: str, **affected: Any) -> dict[str, Any]:
    return {"id": identity, "affected": [{"package": {"name": name, "ecosystem": "PyPI"}, **affected}]}


def events(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"type": "ECOSYSTEM", "events": [{kind: version} for kind, version in pairs]}]


ADVISORIES = [
    advisory("A", "Some_Package", versions=["1.0"]),
    advisory("B", "some-package", ranges=events(("introduced", "0"), ("fixed", "2.0"), ("introduced", "3.0"))),
    advisory("C", "some-package", ranges=events(("introduced", "1.5"), ("last_affected", "2.5"))),
    advisory("D", "other", versions=["1.0"]),
    {"id": "E", "affected": [{"package": {"name": "some-package", "ecosystem": "npm"}, "versions": ["1.0"]}]},
]


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("some-package", "1.0", ["A", "B"]),
        ("some.package", "1.10", ["B", "C"]),
        ("some-package", "2.0", ["C"]),
        ("some-package", "2.6", []),
        ("some-package", "3.1", ["B"]),
        ("unknown", "1.0", []),
    ],
)
def test_a_query_finds_what_touches_the_version(name: str, version: str, found: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for entry in ADVISORIES:
            archive.writestr(f"{entry['id']}.json", json.dumps(entry))
    query = json.dumps({"package": {"name": name, "ecosystem": "PyPI"}, "version": version}).encode()
    with served(by_package(read_snapshot(tmp_path / "all.zip"))) as url:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, query)) as response:
            assert [entry["id"] for entry in json.load(response).get("vulns", [])] == found
