"""`make audit`: known vulnerabilities of the packages in constraints.txt, found by pip-audit.

pip-audit asks PyPI. Without a network, give it a snapshot of the advisories: `PyPI/all.zip`, which osv.dev publishes
daily. It is served on loopback, as the service that pip-audit knows how to ask.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

PINNED = Path(__file__).resolve().parent.parent / "constraints.txt"
Advisory = Mapping[str, Any]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make audit AUDIT_FLAGS=…")
    parser.add_argument("--snapshot", type=Path, help="PyPI/all.zip of osv.dev; nothing else is asked then")
    snapshot = parser.parse_args(arguments).snapshot
    # Strict: a package that could not be looked up must not count as one without vulnerabilities.
    command = [sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip", "-r", str(PINNED)]
    if snapshot is None:
        return subprocess.run(command).returncode
    with served(by_package(read_snapshot(snapshot))) as url:
        return subprocess.run([*command, "--vulnerability-service", "osv", "--osv-url", url]).returncode


def read_snapshot(path: Path) -> Iterator[Advisory]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            yield json.loads(archive.read(name))


def by_package(advisories: Iterable[Advisory]) -> dict[str, list[Advisory]]:
    found: dict[str, list[Advisory]] = {}
    for advisory in advisories:
        for name in {canonicalize_name(entry["package"]["name"]) for entry in _affected(advisory)}:
            found.setdefault(name, []).append(advisory)
    return found


def answer(known: Mapping[str, list[Advisory]], query: Mapping[str, Any]) -> dict[str, Any]:
    """As `https://api.osv.dev/v1/query` answers: the advisories that touch this version of this package."""
    name, version = canonicalize_name(query["package"]["name"]), query["version"]
    found = [
        advisory
        for advisory in known.get(name, [])
        if any(_touches(e, version) for e in _affected(advisory) if canonicalize_name(e["package"]["name"]) == name)
    ]
    return {"vulns": found} if found else {}


def _affected(advisory: Advisory) -> list[Mapping[str, Any]]:
    return [entry for entry in advisory.get("affected", []) if entry.get("package", {}).get("ecosystem") == "PyPI"]


def _touches(entry: Mapping[str, Any], version: str) -> bool:
    ranges = [found["events"] for found in entry.get("ranges", []) if found["type"] == "ECOSYSTEM"]
    return version in entry.get("versions", []) or any(_within(events, Version(version)) for events in ranges)


def _within(events: Iterable[Mapping[str, str]], version: Version) -> bool:
    inside = False
    for event in events:
        (kind, text), *_ = event.items()
        bound = Version("0.dev0" if text == "0" else text)
        if kind == "introduced" and version >= bound:
            inside = True
        if (kind == "fixed" and version >= bound) or (kind == "last_affected" and version > bound):
            inside = False
    return inside


@contextmanager
def served(known: Mapping[str, list[Advisory]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(answer(known, query)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
