"""The machines that share one training: which of them this is, and where they meet."""

from __future__ import annotations

import os
from typing import NamedTuple

from dmp_core.errors import InputError

VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The environment variables that torchrun reads, too: this machine's number, and the first machine's address."""


class Machine(NamedTuple):
    """Number 0 leads: it holds the artefact's lock, and is the only one that writes."""

    number: int = 0
    of: int = 1
    host: str = ""
    port: int = 0

    @property
    def leads(self) -> bool:
        return self.number == 0


def this_machine(nodes: int) -> Machine:
    """By the environment, if there are several. Raises InputError if that does not say which one this is."""
    if nodes == 1:
        return Machine()
    number, host, port = (os.environ.get(name, "") for name in VARIABLES)
    if not host or not port.isdecimal() or not number.isdecimal() or int(number) >= nodes:
        raise InputError(
            f"train.nodes: {nodes} machines find each other by environment variables: set NODE_RANK to 0 on the first "
            f"and up to {nodes - 1} on the others, and MASTER_ADDR and MASTER_PORT to the first one's address on all"
        )
    return Machine(int(number), nodes, host, int(port))
