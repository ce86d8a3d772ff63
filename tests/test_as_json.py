"""The verdicts as JSON."""

from __future__ import annotations

import json
from dataclasses import fields

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
from runs import (
    CLAUSES,
    PROFILE,
    every_status,
    faultless,
    hostile,
)

from conformance.causes import Cause
from conformance.clauses import LEVELS, SPEC
from conformance.report import to_json
from conformance.verdicts import Note, Status, TrainerRun, Verdict

SCHEMA = json.loads((SPEC / "verdicts.schema.json").read_text(encoding="utf-8"))


def test_json_says_what_the_schema_says() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for runs, clauses in (([every_status(), faultless()], CLAUSES), hostile(), ([], {})):
        document = json.loads(json.dumps(to_json(runs, clauses, PROFILE)))
        jsonschema.validate(document, SCHEMA)
        assert (document["format"], document["version"], document["profile"]) == (
            "refimpl-verdicts",
            1,
            PROFILE,
        )


def test_json_loses_nothing() -> None:
    runs, clauses = hostile()
    for run in (*runs, every_status()):
        (row,) = json.loads(json.dumps(to_json([run], clauses, PROFILE)))["runs"]
        assert row.pop("findings") == []  # nobody was asked for any
        verdicts = [
            Verdict(**{**v, "status": Status(v["status"]), "context": tuple(v["context"])})
            for v in row["verdicts"]
        ]
        notes = {note["clause"]: Note(**note) for note in row["notes"]}
        assert TrainerRun(**{**row, "verdicts": tuple(verdicts), "notes": notes}) == run


def test_the_schema_and_the_document_name_the_same_keys() -> None:
    judged = every_status()
    (failed, *_) = [verdict for verdict in judged.verdicts if verdict.status is Status.FAIL]
    document = to_json([judged], CLAUSES, PROFILE, {judged.trainer: [Cause(failed, [failed.clause, "other"])]})
    run = document["runs"][0]
    assert run["findings"] == [{"scenario": failed.scenario, "clause": failed.clause, "explains": ["other"]}]
    examples = {
        "clause": document["clauses"][0],
        "run": run,
        "note": run["notes"][0],
        "finding": run["findings"][0],
        "verdict": run["verdicts"][0],
    }
    for name, example in examples.items():
        definition = SCHEMA["$defs"][name]
        assert list(example) == list(definition["properties"]) == definition["required"]
    assert list(document) == list(SCHEMA["properties"]) == SCHEMA["required"]
    assert set(examples["verdict"]) == {f.name for f in fields(Verdict)}
    assert set(examples["run"]) == {f.name for f in fields(TrainerRun)} | {"findings"}
    assert SCHEMA["$defs"]["verdict"]["properties"]["status"]["enum"] == [s.value for s in Status]
    assert SCHEMA["$defs"]["clause"]["properties"]["level"]["enum"] == list(LEVELS)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "format", "other"),
        ((), "version", 2),
        ((), "runs", {}),
        (("clauses", 0), "level", "PERHAPS"),
        (("runs", 0), "seconds", -1),
        (("runs", 0, "verdicts", 0), "status", "passed"),
        (("runs", 0, "verdicts", 0), "seq", "42"),
        (("runs", 0, "verdicts", 0), "context", "one line"),
    ],
)
def test_the_schema_refuses_other_documents(place: tuple[str | int, ...], key: str, value: object) -> None:
    document = json.loads(json.dumps(to_json([every_status()], CLAUSES, PROFILE)))
    part = document
    for step in place:
        part = part[step]
    assert key in part
    part[key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)
