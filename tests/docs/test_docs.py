"""The documentation says what the code does: each thing a user can meet stands there once, and nothing that is gone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import click
import msgspec
import pytest

from landline import errors
from landline.cli import main
from landline.commands.subjects import SUBJECTS
from landline.config import Settings, description
from landline.core import stream
from landline.core.bot import ENDPOINT, Profile, Site
from landline.server.admin import Admin
from landline.server.exchange import HttpRules
from landline.wire import connection as http
from landline.wire import head, websocket
from landline.wire.problems import UNEXPECTED, problem_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
SOURCE = ROOT / "src" / "landline"

PAGES = sorted(
    page for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")) if page.parent.name != "spec"
)
"""Everything but the two specifications, which describe more than this version has."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# Reading Markdown.


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def fences(page: Path, language: str) -> Iterator[str]:
    """The code blocks of one language."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL):
        yield found[1]


def rows(text: str) -> list[tuple[str, ...]]:
    """The rows of all tables, without their heads."""
    lines = text.splitlines()
    heads = {number - 1 for number, line in enumerate(lines) if re.fullmatch(r"\|[-|: ]+\|", line)}
    return [
        tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        for number, line in enumerate(lines)
        if line.startswith("|") and number not in heads and number - 1 not in heads
    ]


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level, title = len(heading) - len(heading.lstrip("#")), re.escape(heading)
    found = re.search(rf"^{title}$\n(.*?)(?=^#{{1,{level}}} |\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section {heading!r}"
    return found[1]


def anchors(page: Path) -> set[str]:
    """What a link into a page may name, as GitHub makes it of its headings."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Settings.


def setting_rows() -> dict[str, tuple[str, str, str, str]]:
    """The row of each setting: its name, default, what it takes, and the sentence that `landline.config` has for it."""
    hints = get_type_hints(Settings, include_extras=True)
    return {
        field.name: (
            f"`{field.name}`",
            shown(field.default),
            takes(field.name, hints[field.name]),
            description(field.name),
        )
        for field in msgspec.structs.fields(Settings)
    }


def shown(default: object) -> str:
    if default in (None, ()):
        return "–"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def takes(name: str, hint: Any) -> str:
    """In words, what `landline.config` accepts."""
    schema = msgspec.json.schema(hint, schema_hook=lambda kind: {"type": kind.__name__})
    schema = next((each for each in schema.get("anyOf", ()) if each != {"type": "null"}), schema)
    pattern = schema.get("pattern", "")
    match schema["type"]:
        case "integer" | "number":
            return ", ".join(filter(None, (unit_of(name), bounds(schema))))
        case "string" if pattern == ENDPOINT:
            return "a URL, also with a query"
        case "string" if pattern.startswith("^https?"):
            return "a URL"
        case "string" if pattern:
            return str(pattern).strip("^()$").replace("|", ", ")
        case kind:
            return {"Path": "a path", "array": "a list", "boolean": "`true` or `false`", "string": "text"}[kind]


def unit_of(name: str) -> str:
    if name.endswith("_per_s"):
        return "a second"
    return {"s": "seconds", "bytes": "bytes"}.get(name.rpartition("_")[2], "")


def bounds(schema: dict[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{least} to {most}"
    above = schema.get("exclusiveMinimum")
    return " and ".join(
        f"{words} {bound}"
        for words, bound in (("at least", least), ("more than", above), ("at most", most))
        if bound is not None
    )


def test_every_setting_is_documented_once_with_its_true_default_and_meaning() -> None:
    expected = sorted(setting_rows().values())
    documented = sorted(rows(text_of(REFERENCE / "settings.md")))
    missing = ["| " + " | ".join(row) + " |" for row in expected if row not in documented]
    stale = [" | ".join(row) for row in documented if row not in expected]
    assert documented == expected, "\n".join(["these rows should be there:", *missing, "instead of these:", *stale])


@each_page
def test_pages_name_no_variable_or_flag_that_does_not_exist(page: Path) -> None:
    variables = set(re.findall(r"\bLANDLINE_([A-Z_]+)\b", text_of(page)))
    assert variables <= {name.upper() for name in Settings.__struct_fields__}
    known = {"--version"}.union(*(flags(command) for command in commands().values()))
    assert set(re.findall(r"`(--[a-z-]+)", text_of(page))) <= known


# Commands.


def commands(group: click.Group | None = None, above: str = "") -> Mapping[str, click.Command]:
    """Everything that can be typed behind `landline`, by its words."""
    found: dict[str, click.Command] = {}
    within = group or main
    assert isinstance(within, click.Group)
    context = click.Context(within)
    for name in within.list_commands(context):
        command = within.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, f"{above}{name} ")
        else:
            found[above + name] = command
    return found


def flags(command: click.Command) -> set[str]:
    options = (parameter for parameter in command.params if isinstance(parameter, click.Option))
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)} | {"--help"}


def test_every_command_is_documented_once() -> None:
    headings = re.findall(r"^## `landline (.+)`$", text_of(REFERENCE / "commands.md"), re.MULTILINE)
    assert sorted(headings) == sorted(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_flag_that_is_no_setting_is_documented_once(name: str) -> None:
    of_settings = {f"--{setting.replace('_', '-')}" for setting in Settings.__struct_fields__}
    documented = [cells[0] for cells in rows(section(REFERENCE / "commands.md", f"## `landline {name}`"))]
    others = {flag for flag in flags(commands()[name]) - of_settings if not flag.startswith("--no-")}
    assert sorted(documented) == sorted(f"`{flag}`" for flag in others)


def test_every_setting_but_secrets_and_tables_is_a_flag_of_serve() -> None:
    names = set(Settings.__struct_fields__) - {"secret", "admin_secret", "bot_app_secret", "bots"}
    given = {flag for flag in flags(commands()["serve"]) if not flag.startswith("--no-")}
    assert {f"--{name.replace('_', '-')}" for name in names} == given - {"--config", "--help"}


def test_help_has_the_settings_under_the_headings_of_the_page() -> None:
    found = re.split(r"^## (.+)$", text_of(REFERENCE / "settings.md"), flags=re.MULTILINE)[1:]
    page = {
        heading: tuple(row[0].strip("`") for row in rows(text))
        for heading, text in zip(found[::2], found[1::2], strict=True)
    }
    assert {heading: names for heading, names in page.items() if names} == SUBJECTS


@each_page
def test_commands_in_the_text_can_be_typed_as_they_stand(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    inline = re.findall(r"`((?:make|landline) [^`\n]+)`", text_of(page))
    for line in [*inline, *"\n".join(fences(page, "sh")).replace("\\\n", " ").splitlines()]:
        words = line.split("#")[0].split()
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets, line
        if "landline" in words[:2] and words.index("landline") + 1 < len(words):
            check_command(words[words.index("landline") + 1 :], line)


def check_command(words: list[str], line: str) -> None:
    if words[0].startswith("-"):
        assert words[0] in flags(main) | {"--version"}, line
        return
    if words in [[name.split()[0]] for name in commands()]:
        return  # a group
    named = [name for name in commands() if words[: len(name.split())] == name.split()]
    assert named, line
    assert {word for word in words if word.startswith("-")} <= flags(commands()[named[0]]), line


# Errors.

NEVER_ANSWERED = (
    errors.LandlineError,
    errors.RequestError,
    errors.CredentialError,
    errors.StoreError,
    errors.DeliveryError,
    errors.ClientGone,
)
"""The branches of the tree, whose leaves are raised; and the one that nobody is there to hear."""


def raised() -> Iterator[errors.LandlineError]:
    """One of each error that can become an answer."""
    needs: dict[type, tuple[Any, ...]] = {
        errors.MethodNotAllowed: ((),),
        errors.BotRejected: (500,),
        errors.RateLimited: (1.0,),
        errors.RangeNotSatisfiable: (0,),
    }
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LandlineError)
    ]
    for kind in kinds:
        if kind not in NEVER_ANSWERED and not issubclass(kind, errors.StartupError):
            yield kind(*needs.get(kind, ()))


def test_every_error_answer_is_documented_once() -> None:
    problems = [problem_of(error) for error in raised()] + [UNEXPECTED]
    answers = section(REFERENCE / "errors.md", "## Answers").partition("\n### ")[0]
    documented = sorted(row[:3] for row in rows(answers))
    assert documented == sorted((str(each.status), f"`{each.code}`", each.message) for each in problems)


def test_every_refusal_of_what_is_not_acceptable_http_is_documented() -> None:
    refusals = section(REFERENCE / "errors.md", "### Refused before any endpoint is asked")
    documented = {int(status) for status, _ in rows(refusals)}
    refused = {*statuses(http, "NotAcceptable"), *statuses(head, "NotAcceptable")}
    assert documented == refused | set(statuses(websocket, "handshake_problem"))


def statuses(module: object, name: str) -> Iterator[int]:
    """The statuses that are passed to `name`, or returned by it, where they are written out."""
    tree = ast.parse(Path(str(getattr(module, "__file__", ""))).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            candidates = node.args[:1]
        elif isinstance(node, ast.FunctionDef) and node.name == name:
            returned = [each.value for each in ast.walk(node) if isinstance(each, ast.Return)]
            candidates = [value.elts[0] for value in returned if isinstance(value, ast.Tuple)]
        else:
            continue
        for candidate in candidates:
            if isinstance(candidate, ast.Constant):
                yield int(str(candidate.value))


def test_every_close_code_is_documented_once() -> None:
    ours = {(str(each.code), f"`{each.reason}`") for each in vars(stream).values() if isinstance(each, stream.Close)}
    protocol = {(str(code), "") for code in (websocket.PROTOCOL_ERROR, websocket.INVALID_DATA)}
    documented = [row[:2] for row in rows(section(REFERENCE / "errors.md", "## Close codes of streams"))]
    assert sorted(documented) == sorted(ours | protocol | {(str(websocket.TOO_BIG), "`message-too-big`")})


def test_every_exit_code_is_documented_once() -> None:
    codes = {kind.exit_code for kind in errors.StartupError.__subclasses__()}
    documented = [int(row[0]) for row in rows(section(REFERENCE / "errors.md", "## Exit codes"))]
    assert documented == sorted({0, 1, *codes})  # 1 is that of a command that was refused


# Bots and sites.


@pytest.mark.parametrize(("heading", "kind"), [("## Properties of a bot", Profile), ("## Properties of a site", Site)])
def test_every_property_of_bots_and_sites_is_documented_once(heading: str, kind: type[msgspec.Struct]) -> None:
    hints = get_type_hints(kind, include_extras=True)
    expected = {}
    for field in msgspec.structs.fields(kind):
        (described,) = (
            part.description for part in hints[field.name].__metadata__ if getattr(part, "description", None)
        )
        default = "" if field.default is msgspec.NODEFAULT else shown(field.default)
        expected[f"`{field.name}`"] = (default, takes(field.name, hints[field.name]), described)
    documented = rows(section(REFERENCE / "bots.md", heading))
    assert len(documented) == len(expected)
    assert {name: tuple(rest) for name, *rest in documented} == expected


def test_every_call_of_the_admin_api_is_documented_once() -> None:
    calls = {
        (method, route.path)
        for route in Admin(*[None] * 7, "", HttpRules(1, 1)).routes()  # type: ignore[arg-type]  # nothing is called
        for method in route.app.methods  # type: ignore[attr-defined]  # a Resource
    }
    documented = [tuple(row[0].strip("`").split(" ")) for row in rows(section(REFERENCE / "admin.md", "## Calls"))]
    assert sorted(documented) == sorted(calls)


# Places and links.


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}"


def files_named(text: str) -> set[str]:
    return set(re.findall(r"`([\w./-]+\.(?:py|toml|md|mjs))`", text))


@each_page
def test_every_source_file_named_in_a_page_exists(page: Path) -> None:
    for name in files_named(text_of(page)):
        places = (ROOT / name, SOURCE / name, page.parent / name)
        assert any(place.exists() for place in places), f"{page.name} names {name}"


def names_in(path: Path) -> set[str]:
    """What a module defines: `Stream`, `Store.append`, `watermark`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            members = (each for each in ast.walk(node) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{each.name}" for each in members}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for each in targets if isinstance(each, ast.Name)}
    return names


def glossary() -> list[tuple[str, ...]]:
    return rows(text_of(DOCS / "glossary.md"))


@pytest.mark.parametrize("row", glossary(), ids=lambda row: row[0])
def test_every_word_of_the_glossary_lives_where_it_says(row: tuple[str, ...]) -> None:
    *_, place = row
    found = re.fullmatch(r"`([\w./]+\.py)`(?:: (.+))?", place)
    assert found, f"{place!r} names no file"
    path = SOURCE / found[1]
    assert path.exists(), f"there is no {found[1]}"
    for name in re.findall(r"`([\w.]+)`", found[2] or ""):
        assert name in names_in(path), f"{found[1]} has no {name}"


def test_the_glossary_has_ten_to_twenty_words() -> None:
    assert 10 <= len(glossary()) <= 20
    words = [row[0].lower() for row in glossary()]
    assert words == sorted(set(words))


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    records = sorted(page.name for page in (DOCS / "decisions").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    index = text_of(DOCS / "decisions" / "README.md")
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index) == records
