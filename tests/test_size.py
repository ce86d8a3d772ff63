"""How many code lines the engine has: at most as many as `docs/size.md` says, which says what they are for."""

from __future__ import annotations

from tests.size import PAGE, code_lines, counts, filled, limit, rows

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


def test_the_engine_keeps_to_the_limit() -> None:
    lines = counts()
    print("\n" + "\n".join(f"{name:<24}{number:>6,}" for name, number in lines.items()))
    total, most = sum(lines.values()), limit(PAGE.read_text(encoding="utf-8"))
    print(f"{'all':<24}{total:>6,} of {most:,}")
    assert total <= most, "make it smaller, or say in docs/size.md what the lines buy"


def test_the_page_is_about_these_files() -> None:
    """Its numbers may lag behind by an edit or two; `python -m tests.size` writes them anew."""
    page = PAGE.read_text(encoding="utf-8")
    shown, now = rows(page), rows(filled(page))
    assert {name for name, _ in shown if name.endswith(".py")} == set(counts())
    assert [row for row, today in zip(shown, now) if abs(row[1] - today[1]) > max(20, today[1] / 20)] == []
