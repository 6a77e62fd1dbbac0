"""A Markdown document as the tests read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = "```"
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, up to the next one."""

    heading: str
    prose: str
    """Everything but the code blocks."""
    code_blocks: tuple[str, ...]

    @property
    def level(self) -> int:
        """How deep the heading is."""
        return len(self.heading) - len(self.heading.lstrip("#"))

    @property
    def links(self) -> list[str]:
        """Where links and images lead."""
        return re.findall(r"\]\(([^)]+)\)", self.prose)

    @property
    def tables(self) -> list[list[list[str]]]:
        """The cells of each row of each table, without the line below the head."""
        tables = re.findall(r"(?:^\|.*\n)+", self.prose, re.MULTILINE)
        rows = ([row.strip("|").split("|") for row in table.splitlines()] for table in tables)
        return [[head, *body] for head, _, *body in rows]


def inline_code(text: str) -> list[str]:
    """The words in backticks, sorted: another language has another order of words."""
    return sorted(_CODE.findall(text))


def without_code(text: str) -> str:
    """The text without the words in backticks."""
    return _CODE.sub("", text)


def read_sections(text: str) -> list[Section]:
    """Return the sections of a document that begins with a heading."""
    sections: list[tuple[str, list[str], list[str]]] = []
    is_code = False
    for line in text.splitlines(keepends=True):
        if line.startswith(_FENCE):
            is_code = not is_code
            if is_code:
                sections[-1][2].append("")
        if is_code:
            sections[-1][2][-1] += line
        elif line.startswith("#"):
            sections.append((line, [], []))
        elif not line.startswith(_FENCE):
            sections[-1][1].append(line)
    return [Section(heading, "".join(prose), tuple(blocks)) for heading, prose, blocks in sections]
