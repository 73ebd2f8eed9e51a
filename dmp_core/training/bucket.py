"""Checkpoints of a workspace in a bucket go there too, so that a run on another machine resumes."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmp_core.errors import InputError
from dmp_core.progress import Progress
from dmp_core.store import Artefact
from dmp_core.store.files import make_folder
from dmp_core.store.threads import NOTE
from dmp_core.training.checkpoints import DIGEST_FILE, STATE_FILE, OtherTraining

logger = logging.getLogger(__name__)


@contextmanager
def shared_checkpoints(out: Artefact, folder: Path, progress: Progress) -> Iterator[Progress]:
    """Fetch checkpoints from the bucket that are newer than those here, and send each new one there.

    Yields the progress to report to, since new checkpoints are looked for at each report: they may be written by
    another process. In a local workspace nothing is done.

    folder: where `out` is made (`staged_folder`); checkpoints are anywhere in its sub-folder `.work`.
    """
    if out.workspace.is_local:
        yield progress
        return
    mirror = _Mirror(out, folder)
    mirror.fetch()

    def reported(done: int, total: int, message: str = "") -> None:
        progress(done, total, message)
        mirror.send()

    try:
        yield reported
    except OtherTraining as error:
        raise InputError(f"{error}, and {out.workspace.address(mirror.there)}") from None
    finally:
        mirror.send()


def fetch_checkpoints(out: Artefact, folder: Path) -> None:
    """Fetch the bucket's newer checkpoints, and send none: another machine does."""
    if not out.workspace.is_local:
        make_folder(folder)
        _Mirror(out, folder).fetch()


class _Mirror:
    """Keeps the same checkpoints in the bucket as here. Each counts once its digest, its last file, is there."""

    def __init__(self, out: Artefact, folder: Path) -> None:
        self.fs, self.there, self.folder = out.workspace.fs, out.workspace.shared_scratch(out), folder
        self.sent: dict[str, str] = {}
        """Path of a checkpoint in the bucket, relative to the scratch folder → its digest."""
        self.noted = False

    def fetch(self) -> None:
        found = {path.removeprefix(f"{self.there}/") for path in self.fs.find(self.there)}
        names = [name.rpartition("/")[0] for name in found if name.endswith(f"/{DIGEST_FILE}")]
        self.sent = {name: self.fs.cat_file(f"{self.there}/{name}/{DIGEST_FILE}").decode() for name in names}
        newest: dict[str, int] = {}
        for name in self._here():
            newest[_series(name)] = max(_step(name), newest.get(_series(name), 0))
        newer = [name for name in sorted(self.sent) if _step(name) > newest.get(_series(name), -1)]
        if newer and NOTE in found:  # the first steps were computed with this number of threads
            self.fs.get_file(f"{self.there}/{NOTE}", str(self.folder / NOTE))
        for name in newer:
            self._fetch(name)

    def _fetch(self, name: str) -> None:
        final = self.folder / name
        final.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".writing-", dir=final.parent))
        try:
            for file in (STATE_FILE, DIGEST_FILE):
                self.fs.get_file(f"{self.there}/{name}/{file}", str(part / file))
            part.rename(final)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        logger.info("%s: fetched from %s", final, self.there)

    def send(self) -> None:
        """Send what is new, then remove what is no longer here. A failure is only logged: training continues."""
        try:
            here = self._here()
            for name in sorted(name for name in here if self.sent.get(name) != here[name]):
                self._send(name)
                self.sent[name] = here[name]
            for name in sorted(self.sent.keys() - here.keys() if here else ()):
                for file in (DIGEST_FILE, STATE_FILE):
                    self.fs.rm_file(f"{self.there}/{name}/{file}")
                del self.sent[name]
        except FileNotFoundError:
            return  # removed meanwhile, since there is a newer one: the next look finds that
        except Exception as error:  # whatever the storage raises: the next checkpoint may reach it
            logger.warning("%s: a checkpoint could not be sent there (%s)", self.there, error)

    def _send(self, name: str) -> None:
        if not self.noted:
            self.fs.put_file(str(self.folder / NOTE), f"{self.there}/{NOTE}")
            self.noted = True
        for file in (STATE_FILE, DIGEST_FILE):
            self.fs.put_file(str(self.folder / name / file), f"{self.there}/{name}/{file}")

    def _here(self) -> dict[str, str]:
        """The same as `sent`, of this machine's checkpoints."""
        notes = (self.folder / ".work").rglob(f"step-*/{DIGEST_FILE}")
        return {note.parent.relative_to(self.folder).as_posix(): note.read_text() for note in notes if _is_whole(note)}


def _is_whole(note: Path) -> bool:
    return re.fullmatch(r"step-\d+", note.parent.name) is not None


def _series(name: str) -> str:
    return name.rpartition("/")[0]


def _step(name: str) -> int:
    return int(name.rpartition("-")[2])
