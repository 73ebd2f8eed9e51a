"""Run by test_finetune in a separate process, to be killed: trains on the toy, printing each step."""

import sys

from dmp_core.methods.dmp.finetune import finetune
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.training.conftest import toy_pairs
from tests.training.test_finetune import CONFIGS


def report(done: int, total: int, message: str = "") -> None:
    sys.stdout.write(f"{done}\n")
    sys.stdout.flush()


name, base, work, out = sys.argv[1:]
finetune(CONFIGS[name], load_base(BaseConfig(model=base)), toy_pairs(), work, out, progress=report)
