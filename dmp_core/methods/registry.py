"""Which methods there are, by name.

Third parties announce theirs as an entry point of the group `dmp.methods`, a class that follows
`dmp_core.methods.protocol.Method`:

    [project.entry-points."dmp.methods"]
    mine = "my_package.method:MyMethod"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata

from dmp_core.errors import InputError
from dmp_core.methods.protocol import Method

ENTRY_POINTS = "dmp.methods"

# name -> "module:class"; a string, so that naming one method imports no other. In the order of the paper's rows.
BUILT_IN = {
    "spade": "dmp_core.methods.translation:Spade",
    "drit": "dmp_core.methods.translation:Drit",
    "sdedit": "dmp_core.methods.generation:Sdedit",
    "ddib": "dmp_core.methods.generation:Ddib",
    "ip2p_hard": "dmp_core.methods.generation:HardInstruct",
    "ip2p_learned": "dmp_core.methods.generation:LearnedInstruct",
    "visii": "dmp_core.methods.generation:Visii",
    "dmp": "dmp_core.methods.dmp:DMP",
}


def method_names() -> list[str]:
    """Names that `find_method` knows, built-in ones first."""
    announced = sorted({point.name for point in metadata.entry_points(group=ENTRY_POINTS)} - BUILT_IN.keys())
    return [*BUILT_IN, *announced]


def find_method(name: str) -> Method:
    """The method of that name; raises InputError that lists the known ones."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        built_in: Callable[[], Method] = getattr(import_module(module), attribute)
        return built_in()
    for point in metadata.entry_points(group=ENTRY_POINTS, name=name):
        announced: Callable[[], Method] = point.load()
        return announced()
    raise InputError(f"method {name!r} is unknown; choose one of: {', '.join(method_names())}")
