"""What scripts import from `utilities`."""

from __future__ import annotations

import pytest

import refimpl as pl
from refimpl.utilities import MisconfigurationException, rank_zero_info, rank_zero_only, rank_zero_warn


@rank_zero_only
def twice(number: int, *, plus: int = 0) -> int:
    """Its own name and text."""
    return 2 * number + plus


def test_only_rank_0_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert twice(3, plus=1) == 7 and twice.__doc__ == "Its own name and text."
    monkeypatch.setenv("RANK", "0")
    assert twice(3) == 6
    monkeypatch.setenv("RANK", "1")
    assert twice(3) is None


def test_only_rank_0_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rank_zero_info("%d of %s", 3, "four")
    rank_zero_info("100 %")
    with pytest.warns(UserWarning, match="careful") as warned:
        rank_zero_warn("careful")
    assert warned[0].filename == __file__
    monkeypatch.setenv("RANK", "2")
    rank_zero_info("nothing")
    rank_zero_warn("nothing")
    assert capsys.readouterr().out == "3 of four\n100 %\n"


def test_the_error_of_the_period_is_that_of_today() -> None:
    assert pl.utilities.MisconfigurationException is MisconfigurationException is pl.ConfigurationError
    with pytest.raises(MisconfigurationException):
        pl.Trainer(max_epochs=-2)
