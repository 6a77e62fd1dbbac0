"""``README.ru.md`` says what ``README.md`` says, as far as that can be told without knowing Russian."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.markdown import Section, inline_code, read_sections, without_code

ROOT = Path(__file__).parents[2]
ENGLISH, RUSSIAN = ((ROOT / name).read_text() for name in ("README.md", "README.ru.md"))
PAIRS = list(zip(read_sections(ENGLISH), read_sections(RUSSIAN), strict=False))
TO_RUSSIAN, TO_ENGLISH = "README.ru.md", "README.md"

in_each_section = pytest.mark.parametrize(
    ("english", "russian"), [pytest.param(*pair, id=pair[0].heading.strip("# \n")) for pair in PAIRS]
)


def test_both_have_the_same_headings() -> None:
    english, russian = ([section.level for section in read_sections(text)] for text in (ENGLISH, RUSSIAN))
    assert english == russian


@in_each_section
def test_a_section_has_the_same_code_blocks_but_for_comments(english: Section, russian: Section) -> None:
    assert _without_comments(english) == _without_comments(russian)


@in_each_section
def test_a_section_has_the_same_words_of_code(english: Section, russian: Section) -> None:
    assert inline_code(english.prose) == inline_code(russian.prose)


@in_each_section
def test_a_section_has_the_same_tables(english: Section, russian: Section) -> None:
    """Rows, columns, and the words of code in each cell."""
    assert _words_of_code_in_tables(english) == _words_of_code_in_tables(russian)


@in_each_section
def test_a_section_has_the_same_links(english: Section, russian: Section) -> None:
    english_links, russian_links = sorted(english.links), sorted(russian.links)
    if english is PAIRS[0][0]:
        english_links.remove(TO_RUSSIAN)
        russian_links.remove(TO_ENGLISH)
    assert english_links == russian_links


@in_each_section
def test_a_section_has_the_same_numbers(english: Section, russian: Section) -> None:
    assert _numbers(english) == _numbers(russian)


def test_the_russian_one_leads_to_the_english_one_first() -> None:
    below_title = next(line for line in RUSSIAN.splitlines()[1:] if line)
    assert f"]({TO_ENGLISH})" in below_title


@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN], ids=["english", "russian"])
def test_it_has_at_most_130_lines(text: str) -> None:
    assert len(text.splitlines()) <= 130


def _without_comments(section: Section) -> list[str]:
    return [re.sub(r"[ \t]+#.*", "", block) for block in section.code_blocks]


def _words_of_code_in_tables(section: Section) -> list[list[list[list[str]]]]:
    return [[[inline_code(cell) for cell in row] for row in table] for table in section.tables]


def _numbers(section: Section) -> list[str]:
    text = re.sub(r"\]\([^)]+\)", "]", without_code(section.prose))
    return sorted(re.findall(r"\d+(?:\.\d+)*", text))
