"""What warnings show."""

from __future__ import annotations

from typing import Any

import pytest
from models import Line, pairs, quiet


@pytest.mark.parametrize("function", ["fit", "validate", "test", "predict"])
def test_a_warning_shows_the_users_line(function: str) -> None:
    class Stopped(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise KeyboardInterrupt

        validation_step = test_step = predict_step = training_step  # type: ignore[assignment]

    with pytest.warns(UserWarning, match=f"{function} was interrupted") as told:
        getattr(quiet(limit_val_batches=0 if function == "fit" else 1), function)(Stopped(), pairs(1))
    assert {warning.filename for warning in told} == {__file__}
