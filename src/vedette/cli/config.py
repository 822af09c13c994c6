"""`vedette config check|show|schema`: what a configuration says, and whether this host can hold it.
Counterpart: `config.load` reads it; `app.soundness` looks whether what it names is there."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
import typer

from vedette.cli.options import Config, Data, Output
from vedette.cli.output import FOUND, OK, WRONG, Format, errors_said, note, say, write_json
from vedette.config.folders import DEFAULT_PATH
from vedette.config.load import load_with_places, schema
from vedette.config.settings import Settings

app = typer.Typer(help="The configuration: check, show, schema.", no_args_is_help=True)

ConfigOrFile = Annotated[Path | None, typer.Argument(help="the file; none: --config, or the usual place")]


@app.command("check")
def check(file: ConfigOrFile = None, config: Config = None, output: Output = Format.TEXT) -> None:
    """What is wrong with the configuration, by file and line; exit 2 for problems, 1 for warnings."""
    with errors_said():
        from vedette.app.soundness import Verdict, check_settings

        path = file or config
        settings, places = load_with_places(path)
        found, rules = check_settings(settings, places)
        if output is Format.JSON:
            write_json(
                {
                    "check": one.name,
                    "verdict": one.verdict.value,
                    "message": one.words,
                    "hint": one.hint or None,
                    "file": one.location.file if one.location else None,
                    "line": one.location.line if one.location else None,
                    "column": one.location.column if one.location else None,
                }
                for one in found
            )
        else:
            for one in found:
                place = f"{one.location}: " if one.location else ""
                say(f"{place}{one.verdict.value}: {one.words}" + (f" (hint: {one.hint})" if one.hint else ""))
        verdicts = {one.verdict for one in found}
        if not found:
            note(f"{_name(path)}: fine, {len(rules)} rules, {len(settings.notify.receivers)} receivers")
        raise SystemExit(WRONG if Verdict.PROBLEM in verdicts else FOUND if found else OK)


def _name(path: Path | None) -> str:
    if path is None and not DEFAULT_PATH.exists():
        return "defaults (no configuration is needed)"
    return str(path or DEFAULT_PATH)


@app.command("show")
def show(config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """The settings in effect, defaults filled in; secrets are named, never shown."""
    with errors_said():
        settings, _ = load_with_places(config)
        if data is not None:
            settings = settings.model_copy(update={"data": data})
        tree = effective(settings)
        if output is Format.JSON:
            write_json([tree])
        else:
            for line in yaml_lines(tree):
                say(line)


def effective(settings: Settings) -> dict[str, Any]:
    """The settings as plain values with the data folder decided and everything that may hold a secret hidden."""
    tree = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    # One place for rungs: `respond`.
    del tree["blocking"]["rungs"]
    tree["data"] = str(settings.data_folder())
    if settings.state_url:
        tree["state_url"] = _without_secrets(settings.state_url)
    notify = tree["notify"]
    for one in [*notify["receivers"].values(), notify.get("heartbeat", {})]:
        if isinstance(one.get("url"), str) and one.get("type") != "pagerduty":
            one["url"] = _without_secrets(one["url"])
    return tree


def _without_secrets(url: str) -> str:
    """Scheme and host: whoever holds the rest of a webhook's URL may use it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}/…" if parts.path or parts.query or "@" in parts.netloc else url


def yaml_lines(tree: dict[str, Any]) -> Iterable[str]:
    """Plain values as lines of YAML."""
    from ruamel.yaml import YAML

    out = StringIO()
    writer = YAML(typ="rt", pure=True)
    writer.default_flow_style = False
    writer.dump(tree, out)
    return out.getvalue().splitlines()


@app.command("schema")
def print_schema() -> None:
    """The JSON Schema of the configuration, for editors."""
    with errors_said():
        for line in orjson.dumps(schema(), option=orjson.OPT_INDENT_2).decode().splitlines():
            say(line)
