"""The table of an evaluation's results, and when it is printed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Line, pairs, quiet

from refimpl.loggers.tables import results_table


def test_one_loader() -> None:
    assert results_table("test", [{"test_loss": 0.1234567, "acc": 1.0, "big": 123456789.0}]) == "\n".join([
        "test             value",
        "----------------------",
        "test_loss     0.123457",
        "acc                  1",
        "big        1.23457e+08",
    ])  # fmt: skip


def test_several_loaders() -> None:
    results = [
        {"loss/dataloader_idx_0": 0.5, "all": 2.0},
        {"loss/dataloader_idx_1": 0.25, "extra/dataloader_idx_1": -1.0, "all": 2.0},
    ]
    assert results_table("validate", results) == "\n".join([
        "validate  loader 0  loader 1",
        "----------------------------",
        "loss           0.5      0.25",
        "all              2         2",
        "extra                     -1",
    ])  # fmt: skip


def test_nothing_logged_is_no_table() -> None:
    assert results_table("test", []) == results_table("test", [{}]) == results_table("test", [{}, {}]) == ""


@given(st.lists(st.dictionaries(st.text("abc_/", min_size=1, max_size=9), st.floats()), min_size=1, max_size=3))
def test_every_value_is_in_its_row_and_column(results: list[dict[str, float]]) -> None:
    head, *rows = results_table("test", results).splitlines() or [""]
    names = list(dict.fromkeys(name for values in results for name in values))
    assert len(rows) == (len(names) + 1 if names else 0)
    assert all(len(row) == len(head) for row in rows)
    for name, row in zip(names, rows[1:]):
        values = [f"{values[name]:.6g}" for values in results if name in values]
        assert row.split() == [name, *values]


# ---- printing -------------------------------------------------------------------------------------------


class Logging(Line):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("val_loss", 0.5)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("test_loss", 0.25 * (1 + dataloader_idx))


def test_validate_and_test_return_and_print(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = quiet()
    assert trainer.validate(Logging(), pairs(2)) == [{"val_loss": 0.5}]
    assert capsys.readouterr().out == "validate  value\n---------------\nval_loss    0.5\n"
    assert trainer.test(Logging(), [pairs(2), pairs(2)]) == [
        {"test_loss/dataloader_idx_0": 0.25}, {"test_loss/dataloader_idx_1": 0.5}
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines()[0] == "test       loader 0  loader 1"


def test_verbose_false_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert quiet().validate(Logging(), pairs(1), verbose=False) == [{"val_loss": 0.5}]
    assert quiet().test(Logging(), pairs(1), verbose=False) == [{"test_loss": 0.25}]
    assert capsys.readouterr().out == ""


def test_a_fit_prints_no_table_nor_does_another_rank(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = quiet(num_sanity_val_steps=1)
    trainer.fit(Logging(), pairs(1), pairs(1))
    trainer.run.devices.global_rank = 1
    trainer.test(Logging(), pairs(1))
    assert capsys.readouterr().out == ""


def test_nothing_is_printed_of_what_was_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(Logging):
        def on_test_epoch_end(self) -> None:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        assert quiet().test(Interrupted(), pairs(1)) == []
    assert capsys.readouterr().out == ""
