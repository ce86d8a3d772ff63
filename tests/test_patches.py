"""A patch finds its place by name and tokens, wherever the code stands and however it is laid out."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from conformance.mutants import patches
from conformance.mutants.patches import Patch, StaleMutant, definitions, module_of, patched

ENGINE = {
    "refimpl": "",
    "refimpl.one": """
        LIMIT = 1

        def price(count: int) -> list[int]:
            \"\"\"What it costs,
            piece by piece.\"\"\"
            if count > 2: count = 2  # at most
            return [count * 10, "a  b"]

        def twice(count):
            return count + count

        class Box:
            @property
            def size(self): return self._size

            @size.setter
            def size(self, value):
                self._size = value

            def filled(self):
                def fill(by):
                    return by
                return fill(3)
    """,
    "refimpl.folder": "def twice(count): return 2 * count",
    "refimpl.folder.one": "def other(): return 1",
}


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small engine in the place of the real one."""
    monkeypatch.setattr(patches, "sources", lambda: {name: textwrap.dedent(text) for name, text in ENGINE.items()})


def mutant(*changes: Patch) -> dict[str, Any]:
    """The names of the one module that these patches change."""
    [code] = patched(changes).values()
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(
    "find",
    [
        "if count > 2: count = 2",
        "if count > 2:\n    count = 2",
        "  if count>2:  # more\n\n      # than there are\n      count = 2",
    ],
)
def test_layout_and_comments_do_not_count(find: str) -> None:
    assert mutant(Patch("price", find, "count = 7"))["price"](3) == [70, "a  b"]


def test_a_header_a_part_of_a_statement_and_the_comma_of_a_wrapped_list_are_found() -> None:
    changed = mutant(
        Patch("price", "def price(count: int) -> list[int]:", "def price(count, more=5):\n    count += more"),
        Patch("price", "count * 10", "count"),
        Patch("price", "= 2", "= 9"),
    )
    assert changed["price"](1) == [9, "a  b"]
    assert mutant(Patch("price", '[\n    count * 10,\n    "a  b",\n]', "None"))["price"](3) is None


def test_the_lines_of_a_replacement_are_indented_from_the_place() -> None:
    replace = """
        for number in range(2):
            self._size = value * number
    """
    box = mutant(Patch("Box.size", "self._size = value", replace))["Box"]()
    box.size = 4
    assert box.size == 4


def test_a_docstring_counts_but_for_its_layout() -> None:
    header = 'def price(count: int) -> list[int]:\n    """What it costs, piece by piece."""'
    assert mutant(Patch("price", header, header + "\n    return 0"))["price"](3) == 0


def test_nested_functions_accessors_and_modules_are_places() -> None:
    assert mutant(Patch("Box.filled.fill", "return by", "return -by"))["Box"]().filled() == -3
    assert mutant(Patch("refimpl.one:", "LIMIT = 1", "LIMIT = 2"))["LIMIT"] == 2
    assert list(definitions("@staticmethod\ndef f():\n    pass\n")["f"][0]) == [1, 2, 3]


def test_patches_of_a_mutant_refer_to_the_healthy_engine() -> None:
    changed = mutant(Patch("other", "1", "(lambda other: other)(5)"), Patch("other", "other", "one"))
    assert changed["one"]() == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([Patch("prise", "", "")], "no function, method, class or module 'prise'; did you mean 'price'"),
        ([Patch("twice", "count", "")], r"'twice' is in refimpl.one and refimpl.folder; .* as 'folder:twice'"),
        ([Patch("one:", "1", "")], "'one:' is in refimpl.one and refimpl.folder.one; .* as 'folder.one:'"),
        ([Patch("price", "count + 1", "")], r"price holds 'count \+ 1' 0 times; a patch needs it once"),
        ([Patch("price", "count", "")], "price holds 'count' 4 times"),
        ([Patch("price", "coun", "")], "price holds 'coun' 0 times"),
        ([Patch("price", "", "1")], "price holds '' .* times"),
        ([Patch("other", "return 1", "x"), Patch("other", "1", "y")], "two patches of refimpl.folder.one overlap"),
        ([Patch("other", "return 1", "return (")], "refimpl.folder.one is no Python"),
        ([Patch("other", "return 1", "a = 1\nreturn a")], "refimpl.folder.one is no Python"),
    ],
)
def test_a_patch_that_does_not_fit_says_why(changes: list[Patch], message: str) -> None:
    with pytest.raises(StaleMutant, match=message):
        patched(changes)


def test_a_name_in_several_modules_is_told_apart_by_the_module() -> None:
    assert mutant(Patch("folder:twice", "2", "3"))["twice"](5) == 15
    assert mutant(Patch("refimpl.one:twice", "+", "-"))["twice"](5) == 0
    assert module_of("folder") == "refimpl.folder"
