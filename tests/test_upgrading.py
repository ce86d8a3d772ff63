"""The page says what the releases do now; `python -m tests.upgrading` rewrites it. Skipped where they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from upgrading import PAGE, page

from conformance.worlds import RELEASES, ReleaseMissing, locate


@pytest.mark.slow
def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    for release in RELEASES:
        try:
            locate(release)
        except ReleaseMissing as missing:
            pytest.skip(str(missing))
    assert PAGE.read_text(encoding="utf-8") == page(tmp_path), f"{PAGE.name} is out of date: python -m tests.upgrading"
