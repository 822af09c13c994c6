"""An attack file as scenarios: Gherkin read, backgrounds put before, outlines filled in, every step with its place.
Counterpart: `steps` says what each step means; gherkin-official knows the language."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from vedette.model.errors import Location
from vedette.model.ports import NOWHERE

FILE_LIMIT = 1024 * 1024
STEP_LIMIT = 20_000
"""Steps of one file, those of backgrounds and outlines counted for each scenario."""

UNNAMED = "unnamed scenario"

Table = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step as written. text: without its keyword. doc, table: what stands under it, where something does.

    doc_at: the place of its first line. rows_at: the places of the table's rows.
    """

    text: str
    at: Location
    keyword: str = ""
    doc: str | None = None
    doc_at: Location = NOWHERE
    table: Table | None = None
    rows_at: tuple[Location, ...] = ()

    def __str__(self) -> str:
        return f"{self.keyword} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run as one: the steps of its background first. tags: its own and its feature's, with `@`.

    name: of one file no two are alike; rows of outlines and scenarios that are called the same are numbered.
    remarks: the lines of descriptions before its steps, which Gherkin takes for words to people.
    """

    feature: str
    name: str
    tags: tuple[str, ...]
    at: Location
    steps: tuple[Step, ...]
    remarks: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file cannot be run as written."""

    at: Location
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.at}: {self.message}" + (f" (hint: {self.hint})" if self.hint else "")


def read_feature(raw: bytes, file: str) -> tuple[list[Scenario], list[Problem]]:
    """The scenarios of a file (UTF-8), and what is wrong with it."""
    # One of the two largest libraries here, and its parser's tables; only who reads attack files pays for it.
    from gherkin.errors import CompositeParserException, ParserException
    from gherkin.parser import Parser

    if len(raw) > FILE_LIMIT:
        return [], [Problem(Location(file), f"larger than {FILE_LIMIT} bytes", "split the file")]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [Problem(Location(file, raw.count(b"\n", 0, error.start) + 1), "is not UTF-8")]
    try:
        document: dict[str, Any] = dict(Parser().parse(text))
    except CompositeParserException as error:
        return [], [_said(one, file) for one in error.errors]
    except ParserException as error:
        return [], [_said(error, file)]
    feature = document.get("feature")
    if not feature:
        return [], [Problem(Location(file, 1), "no feature", "begin with `Feature:` and a name")]
    problems, nodes, remarks = _looked_over(feature, file, text.split("\n"))
    if problems:
        # What a misspelt keyword made of a step is said as well: it may be why a scenario has none.
        return [Scenario(feature["name"], "", (), _at(feature, file), (), tuple(remarks))], problems
    document["uri"] = file
    scenarios = []
    rows: dict[str, int] = {}
    names: dict[str, int] = {}
    for pickle in _pickles(document):
        first, *row = pickle["astNodeIds"]
        scenario = nodes[first]
        name = pickle["name"] or UNNAMED
        if row:
            rows[first] = rows.get(first, 0) + 1
            name = f"{name} [row {rows[first]}]"
        # A name is the key of an alert: the pass of one scenario must not end the alert of another.
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            name = f"{name} [{names[name]}]"
        scenarios.append(
            Scenario(
                feature["name"],
                name,
                tuple(dict.fromkeys(tag["name"] for tag in pickle["tags"])),
                _at(nodes[row[0]] if row else scenario, file),
                tuple(_step(step, nodes, file) for step in pickle["steps"]),
                tuple(remarks),
            )
        )
    return scenarios, []


def _pickles(document: dict[str, Any]) -> list[Any]:
    from gherkin.pickles.compiler import Compiler

    class Literal(Compiler):
        """Takes names and cells of outlines for what they are; the library's own reads both as regular expressions."""

        def _interpolate(self, name: Any, variable_cells: Any, value_cells: Any) -> Any:
            for variable, value in zip(variable_cells, value_cells, strict=False):
                name = name and name.replace(f"<{variable['value']}>", value["value"])
            return name

    return list(Literal().compile(cast(Any, document)))


def _said(error: Any, file: str) -> Problem:
    place = error.location
    _, _, words = str(error).partition("): ")
    return Problem(Location(file, place["line"], place.get("column") or 0), words or str(error))


def _at(node: Any, file: str) -> Location:
    return Location(file, node["location"]["line"])


def _looked_over(feature: Any, file: str, lines: list[str]) -> tuple[list[Problem], dict[str, Any], list[Step]]:
    """What Gherkin allows and says nothing; every scenario, step and row by its id; and the lines of descriptions."""
    from gherkin.dialect import Dialect

    problems: list[Problem] = []
    remarks: list[Step] = []
    nodes: dict[str, Any] = {}
    found = total = 0
    dialect = Dialect.for_name(feature["language"])
    outlines = dialect.scenario_outline_keywords if dialect is not None else ()
    for node, before in _scenarios(feature["children"], 0):
        steps = node.get("steps", ())
        remarks += _remarks(node, file, lines)
        nodes.update((step["id"], step) for step in steps)
        if "examples" not in node:
            continue
        found += 1
        nodes[node["id"]] = node
        named = f" {node['name']!r}" if node["name"] else ""
        if not steps:
            problems.append(Problem(_at(node, file), f"scenario{named} has no steps"))
        rows = 1
        if node["examples"] or node["keyword"] in outlines:
            given = [row for one in node["examples"] for row in one.get("tableBody", ())]
            nodes.update((row["id"], row) for row in given)
            rows = len(given)
            if not given:
                problems.append(Problem(_at(node, file), f"scenario outline{named} has no rows", "add `Examples:`"))
        total += rows * (len(steps) + before)
    if not found:
        problems.append(Problem(_at(feature, file), "no scenario"))
    if total > STEP_LIMIT:
        problems.append(Problem(_at(feature, file), f"more than {STEP_LIMIT} steps to run", "split the file"))
    return problems, nodes, remarks


def _remarks(node: Any, file: str, lines: list[str]) -> Iterator[Step]:
    """The lines of a description. Gherkin gives them no place, and leaves comments out of them."""
    number = node["location"]["line"]
    for text in filter(None, (line.strip() for line in node["description"].split("\n"))):
        while number < len(lines) and lines[number].strip() != text:
            number += 1
        number += 1
        yield Step(text, Location(file, number))


def _scenarios(children: Any, before: int) -> Iterator[tuple[Any, int]]:
    """Backgrounds and scenarios, with the number of background steps before each."""
    for child in children:
        if "background" in child:
            before += len(child["background"]["steps"])
            yield child["background"], 0
        elif "rule" in child:
            yield from _scenarios(child["rule"]["children"], before)
        else:
            yield child["scenario"], before


def _step(step: Any, nodes: dict[str, Any], file: str) -> Step:
    """A step of a pickle, which has outlines filled in, with the place it was written at."""
    written = nodes[step["astNodeIds"][0]]
    argument = step.get("argument") or {}
    doc, doc_at = None, NOWHERE
    if "docString" in argument:
        doc = argument["docString"]["content"]
        doc_at = Location(file, written["docString"]["location"]["line"] + 1)
    table = rows_at = None
    if "dataTable" in argument:
        table = tuple(tuple(cell["value"] for cell in row["cells"]) for row in argument["dataTable"]["rows"])
        rows_at = tuple(_at(row, file) for row in written["dataTable"]["rows"])
    return Step(step["text"], _at(written, file), written["keyword"].strip(), doc, doc_at, table, rows_at or ())
