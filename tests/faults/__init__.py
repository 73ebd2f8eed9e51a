"""Writes that fail in any library: a process is started with `faults.c` preloaded."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")


@cache
def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """The compiled library."""
    library = folder / "faults.so"
    subprocess.run([str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def environment(library: Path, folder: Path, fault: tuple[int, int, bool] | None = None) -> dict[str, str]:
    """Variables for a process whose writes below `folder` may fail.

    fault: (number of the write, counted from 1; errno; whether all later ones fail as well), from the start.
    """
    armed = {"DMP_FAULT": f"{fault[0]}:{fault[1]}:{int(fault[2])}"} if fault else {}
    return {"LD_PRELOAD": str(library), "DMP_FAULT_FOLDER": str(folder), **armed}


class Faults:
    """For use within such a process."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(None)
        self.library.faults_count.restype = ctypes.c_long

    def arm(self, number: int, error: int, lasting: bool) -> None:
        """Let the write of that number fail, counted from now, and if `lasting` all later ones."""
        self.library.faults_arm(ctypes.c_long(number), error, int(lasting))

    def disarm(self) -> int:
        """Let no write fail; returns the number of writes."""
        seen = int(self.library.faults_count())
        self.library.faults_arm(ctypes.c_long(0), 0, 0)
        return seen
