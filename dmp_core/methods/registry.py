"""Which methods there are, by name.

Third parties register theirs as an entry point of the group `dmp.methods`, a class that follows
`dmp_core.methods.protocol.Method`:

    [project.entry-points."dmp.methods"]
    mine = "my_package.method:MyMethod"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, SerializeAsAny, Tag, WithJsonSchema

from dmp_core.errors import InputError
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.methods.protocol import Method
from dmp_core.methods.settings import MethodConfig

ENTRY_POINTS = "dmp.methods"

# name -> "module:class"; a string, so that naming one method imports no other. In the order of the paper's rows.
BUILT_IN = {
    "spade": "dmp_core.methods.spade:Spade",
    "drit": "dmp_core.methods.drit:Drit",
    "sdedit": "dmp_core.methods.sdedit:Sdedit",
    "ddib": "dmp_core.methods.ddib:Ddib",
    "ip2p_hard": "dmp_core.methods.instruct:HardInstruct",
    "ip2p_learned": "dmp_core.methods.instruct:LearnedInstruct",
    "visii": "dmp_core.methods.visii:Visii",
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


def _method_tag(value: Any) -> str:
    name = value.get("method", "dmp") if isinstance(value, Mapping) else getattr(value, "method", None)
    return "<dmp>" if name == "dmp" else "<other>"


def _registered(value: Any) -> Any:
    """Settings of any other method, validated by the class that its registry entry names."""
    return find_method(str(value["method"])).settings.model_validate(value) if isinstance(value, Mapping) else value


_AnyOther = WithJsonSchema(
    {
        "title": "OtherMethod",
        "description": "Settings of another method; `dmp config show` knows them.",
        "type": "object",
        "properties": {"method": {"type": "string", "not": {"const": "dmp"}}},
        "required": ["method"],
    }
)


MethodSettings = Annotated[
    Annotated[TrainConfig, Tag("<dmp>")]
    | Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_registered), _AnyOther, Tag("<other>")],
    Discriminator(_method_tag),
]
