"""What the documentation site has beyond the files in docs/: mkdocs calls these hooks (`mkdocs.yml`).

README, CHANGELOG and CONTRIBUTING become pages; the references of commands and settings are made from the code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.methods.registry import BUILT_IN as METHODS
from dmp_core.methods.registry import find_method

ROOT = Path(__file__).parents[2]
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=from_root((ROOT / source).read_text())))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    files.append(File.generated(config, "reference/settings.md", content=settings()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name files outside docs/ instead of linking to them: the site has no copy of the code."""
    pages = {source: page for page, source in PAGES.items()}

    def replaced(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        outside = target.removeprefix("../")
        if outside in pages:
            return f"[{text}]({pages[outside]})"
        return found[0] if not target.startswith("../") or page.file.src_uri.count("/") else f"{text} (`{outside}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)\)", replaced, markdown)


def from_root(text: str) -> str:
    """A document of the root folder as a page: links lead from docs/; the flow chart stays as text alone."""
    text = re.sub(r"```mermaid\n.*?```\n", "", text, flags=re.DOTALL)
    text = re.sub(r"(\]\()(?!https?:|#|docs/)(LICENSE)\)", r"\1https://www.apache.org/licenses/LICENSE-2.0)", text)
    return text.replace("](docs/", "](")


def commands() -> str:
    """All commands with their options, as `--help` describes them."""
    import click
    import typer
    from typer.cli import get_docs_for_click

    from dmp_core.cli.commands import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=click.Context(command, info_name="dmp"), name="dmp")
    return text.replace("# `dmp`", "# Commands", 1)


def settings() -> str:
    """All settings with type, default, bounds and meaning."""
    schema = PipelineConfig.model_json_schema()
    lines = [
        "# Settings",
        "",
        "Every field of the configuration, as files and `--set` name it. Defaults are the code's, and a preset has its "
        "own: `dmp config show --preset mini` prints all of one.",
        "",
    ]
    lines += _sections("", schema, schema)
    for name in (name for name in METHODS if name != "dmp"):
        method = find_method(name).settings.model_json_schema()
        lines += _sections("train", method, method, note=f" (method: {name})")
    return "\n".join(lines)


def _sections(path: str, model: dict[str, Any], schema: dict[str, Any], note: str = "") -> list[str]:
    """A model's table, then those of the models in its fields. note: after the path, in the heading."""
    fields = model["properties"]
    kind = fields.get("kind", {}).get("const")
    title = f"`{path}{f' (kind: {kind})' if kind else note}`" if path else "Top level"
    rows = [_row(name, field, schema, name in model.get("required", ())) for name, field in fields.items()]
    lines = [
        f"## {title}",
        "",
        _text(model),
        "",
        "| field | type | default | meaning |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    for name, field in fields.items():
        inner = f"{path}.{name}" if path else name
        for suffix, found in _models(field, schema, ""):
            lines += _sections(inner + suffix, found, schema, note)
    return lines


def _models(field: dict[str, Any], schema: dict[str, Any], suffix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The models that a field contains, and how its path continues to them."""
    if "$ref" in field:
        yield suffix, schema["$defs"][field["$ref"].rpartition("/")[2]]
    for branch in (*field.get("oneOf", ()), *field.get("anyOf", ())):
        yield from _models(branch, schema, suffix)
    if isinstance(field.get("additionalProperties"), dict):
        yield from _models(field["additionalProperties"], schema, f"{suffix}.NAME")
    if isinstance(field.get("items"), dict):
        yield from _models(field["items"], schema, f"{suffix}[]")


def _row(name: str, field: dict[str, Any], schema: dict[str, Any], required: bool) -> str:
    found = [*_models(field, schema, "")]
    meaning = _text(field) or next((_text(model) for _, model in found), "")
    if name == "kind" and "const" in field:
        meaning = "Selects the fields of this section."
    if required:
        default = "required"
    elif found and isinstance(field.get("default"), dict) and field["default"]:
        default = "see its section"
    else:
        default = f"`{json.dumps(field['default'])}`" if "default" in field else "see its meaning"
    return f"| `{name}` | {_type(field, schema)} | {default} | {meaning} |"


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(schema["$defs"][field["$ref"].rpartition("/")[2]].get("title", ""))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    branches = [_type(branch, schema) for branch in (*field.get("oneOf", ()), *field.get("anyOf", ()))]
    if branches:
        return " or ".join(dict.fromkeys(branches))
    kind = str(field.get("type", "anything"))
    if kind == "array":
        items = field.get("prefixItems") or [field.get("items", {})]
        kind = f"list of {', '.join(_type(item, schema) for item in items)}"
    if kind == "object":
        inner = field.get("additionalProperties")
        kind = f"mapping to {_type(inner, schema)}" if isinstance(inner, dict) else "mapping"
    signs = {
        "minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<",
        "multipleOf": "multiple of", "pattern": "matches", "maxLength": "length ≤",
    }  # fmt: skip
    if "prefixItems" not in field:
        signs["minItems"] = "length ≥"
    bounds = [f"{sign} {_code(field[name])}" for name, sign in signs.items() if name in field]
    return " ".join([kind, *bounds])


def _code(value: Any) -> str:
    return f"`{value}`".replace("|", "\\|") if isinstance(value, str) else str(value)


def _text(of: dict[str, Any]) -> str:
    return " ".join(str(of.get("description", "")).split()).replace("|", "\\|")
