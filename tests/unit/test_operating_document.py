"""``docs/operating.md``: what it lists is what the code has, no more and no less."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from openwebui_billing_reconcile.errors import ReleaseRefusedError
from openwebui_billing_reconcile.hookspecs import Way
from openwebui_billing_reconcile.money.findings import FindingClass
from openwebui_billing_reconcile.money.release import UNCREDITED
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.operate import metrics
from tests.support.markdown import inline_code, read_sections
from tests.unit.stub_host import OUR_ROUTES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operating.md").read_text()
README = (ROOT / "README.md").read_text()
MODULES = [ast.parse(file.read_text()) for file in (ROOT / "openwebui_billing_reconcile").rglob("*.py")]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def test_each_way_is_listed() -> None:
    assert _first_words(TEXT, "way") == sorted(Way)


def test_each_class_of_finding_is_listed() -> None:
    assert _first_words(TEXT, "class") == sorted(FindingClass)


def test_each_metric_is_listed_with_its_attributes() -> None:
    assert _first_words(TEXT, "metric") == sorted(_recorded_metrics())


def test_each_endpoint_is_described() -> None:
    described = re.findall(r"\b(GET|POST) (?:/api/v1/billing)?(/topup/reconcile[a-z/]*)", TEXT)
    assert {" ".join(endpoint) for endpoint in described} == set(OUR_ROUTES)


def test_each_code_of_a_refused_release_is_described() -> None:
    """A hold's code is explained in the README, where the document leads to."""
    listed = re.search(r"as it is now \((.*), or a hold's code, as in \[([^]]+)\]\(\.\./README\.md#", TEXT)
    assert listed
    holds, refusals = set(HoldReason), {ReleaseRefusedError.reason, *_reasons_of_refusals()}
    assert inline_code(listed[1]) == sorted(refusals - holds)
    assert f"\n## {listed[2]}\n" in README
    assert _first_words(README, "reason") == sorted({UNCREDITED, *holds})


def test_each_log_line_is_listed_with_its_level() -> None:
    listed = {line: row[1] for row in _rows(TEXT, "line") for line in inline_code(row[0])}
    written = _log_lines()
    assert listed.keys() == written.keys()
    for line, levels in written.items():
        assert not levels or set(re.findall("[A-Z]+", listed[line])) == levels, line


def _rows(document: str, header: str) -> list[list[str]]:
    """The rows of the tables whose first column has this header."""
    return [
        row
        for section in read_sections(document)
        for head, *rows in section.tables
        for row in rows
        if head[0].strip() == header
    ]


def _first_words(document: str, header: str) -> list[str]:
    return sorted(word for row in _rows(document, header) for word in inline_code(row[0]))


def _recorded_metrics() -> Iterator[str]:
    for call in _calls(ast.parse(Path(metrics.__file__).read_text())):
        match call:
            case ast.Call(func=ast.Name("_measure"), args=[_, ast.Constant(name), _]):
                yield str(name)
            case ast.Call(func=ast.Name("_measure"), args=[_, ast.Constant(name), _, ast.Dict(keys=keys)]):
                yield f"{name!s}{{{','.join(ast.literal_eval(key) for key in keys if key)}}}"


def _reasons_of_refusals() -> Iterator[str]:
    for call in (call for module in MODULES for call in _calls(module)):
        if isinstance(call.func, ast.Name) and call.func.id == ReleaseRefusedError.__name__:
            for keyword in call.keywords:
                if isinstance(keyword.value, ast.Constant):
                    yield str(keyword.value.value)


def _log_lines() -> dict[str, set[str]]:
    """The first words of each line that the package writes to the log, with its levels as far as known.

    A line that is a variable alone is left out: it names a flag.
    """
    lines: defaultdict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for call in _calls(module):
            match call.func:
                case ast.Attribute(ast.Name("log") | ast.Call(ast.Attribute(attr="getLogger")), method) if (
                    method in LEVELS
                ):
                    for line in _first_words_logged(call, module):
                        lines[line] |= {method.upper()} - {"LOG"}
    del lines["…"]
    return lines


def _first_words_logged(call: ast.Call, module: ast.Module) -> list[str]:
    """The text before the first colon or bracket, once for each value that it is known to take."""
    at = next(i for i, a in enumerate(call.args) if isinstance(a, ast.Constant) and isinstance(a.value, str))
    text = re.split(r":| \(", ast.literal_eval(call.args[at]))[0]
    literal, *further = re.split(r"%\.?\w", text)
    values = [_values(argument, module) for argument in call.args[at + 1 :]][: len(further)]
    return [
        literal + "".join(f"{value}{words}" for value, words in zip(combination, further, strict=True))
        for combination in product(*values)
    ]


def _values(argument: ast.expr, module: ast.Module) -> list[str]:
    match argument:
        case ast.IfExp(body=ast.Constant(one), orelse=ast.Constant(other)):
            return [str(one), str(other)]
        case ast.Name(name):
            for node in ast.walk(module):
                match node:
                    case ast.Assign(targets=[ast.Name(target)], value=ast.IfExp() as value) if target == name:
                        return _values(value, module)
    return ["…"]


def _calls(module: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module) if isinstance(node, ast.Call))
