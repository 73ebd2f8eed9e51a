"""Run by the tests of the methods in a separate process, to be killed: fits to shapes, printing each step."""

import sys
from pathlib import Path

from tests.methods.shapes import shapes
from tests.methods.test_methods import METHODS


def report(done: int, total: int, message: str = "") -> None:
    sys.stdout.write(f"{done}\n")
    sys.stdout.flush()


method, work = sys.argv[1:]
METHODS[method].fit(shapes(8), METHODS[method].short, Path(work), progress=report)
