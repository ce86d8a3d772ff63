"""How many code lines the engine and its core have: at most as many as `docs/size.md` says, and what they are for."""

from __future__ import annotations

import pytest

from tests.size import PAGE, code_lines, counts, filled, limits, rows

pytestmark = pytest.mark.slow

PROGRAM = '''"""A module.

Of several lines."""

import os  # one

TEXT = """two
three"""  # not a docstring


class Thing:
    """A class."""

    # a comment
    @property
    def name(self) -> str:
        """A function."""
        return os.fspath(
            TEXT,

        )
'''


def test_what_a_code_line_is() -> None:
    assert code_lines(PROGRAM) == 9
    assert code_lines("") == 0
    assert code_lines('def f():\n    """Only a docstring."""\n') == 1
    assert code_lines("x = 1; y = 2\n\n\\\n\nz = 3\n") == 2


@pytest.mark.parametrize("part", ["all", "the core"])
def test_the_engine_keeps_to_the_limit(part: str) -> None:
    lines = {name: number for name, number in counts().items() if part == "all" or "/" not in name}
    total, most = sum(lines.values()), limits(PAGE.read_text(encoding="utf-8"))[part]
    print("\n" + "\n".join(f"{name:<32}{number:>6,}" for name, number in lines.items()))
    print(f"{part:<32}{total:>6,} of {most:,}")
    assert total <= most, "make it smaller, or say in docs/size.md what the lines buy"


def test_the_page_is_about_these_files() -> None:
    """Its numbers may lag behind by an edit or two; `python -m tests.size` writes them anew."""
    page = PAGE.read_text(encoding="utf-8")
    shown, folder = rows(page), ""
    files = [name for name, _ in shown if name.endswith(".py")]
    assert sorted(files) == sorted(counts())
    for name, _ in shown[1:]:
        if name in files:
            assert name.rpartition("/")[0] == folder.rstrip("/"), f"{name} stands under {folder or 'the core'}"
        else:
            folder = name.replace("the core", "")
    today = rows(filled(page))
    assert [row for row, now in zip(shown, today) if abs(row[1] - now[1]) > max(20, now[1] / 20)] == []
