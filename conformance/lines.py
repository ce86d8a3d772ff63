"""One line of a trace, format version 1: bytes to a header, an event or a footer, or why it is none.

Each line is checked by hand rather than against `spec/trace.schema.json`, which says the same and is
some hundred times slower; the tests hold the two to agreement. What is judged here is whether a line
is one at all. Whether spans nest, or come in the right order, is the checker's question. Like `trace`, this
file needs only the standard library and runs on Python 3.8.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

__all__ = [
    "FORMAT",
    "MAX_LINE",
    "VERSION",
    "Event",
    "Footer",
    "Header",
    "Malformed",
    "encode",
    "event_of",
    "footer_of",
    "header_of",
    "parse",
]

FORMAT = "refimpl-trace"
VERSION = 1
MAX_LINE = 1 << 20  # bytes, the newline included
MAX_COUNT = 2**53 - 1  # the greatest integer that every JSON reader keeps exactly
MAX_NUMBER = sys.float_info.max
MAX_NESTING = 32  # levels of lists and objects within a scenario
PHASES = ("B", "E", "I")
OUTCOMES = ("returned", "raised")
GRADS = ("none", "zero", "set")

_N = "(0|[1-9][0-9]{0,3})"
_RECEIVER = re.compile(f"module|datamodule|trainer|callback:{_N}|(optimizer|scheduler)(:{_N})?").fullmatch
_RECEIVERS = (
    "module, datamodule, trainer, callback:N, optimizer, optimizer:N, scheduler, scheduler:N; N at most 9999"
)
_EVENT_FIELDS = ("seq", "ph", "rank", "receiver", "hook", "depth", "args", "fx")
_EVENT_KEYS = frozenset(_EVENT_FIELDS)
_REQUIRED = _EVENT_KEYS - {"args", "fx"}
_EVENT_OF = itemgetter(*_EVENT_FIELDS)
_HEADER_KEYS = frozenset({"format", "version", "suite", "scenario", "trainer", "declares", "environment"})
_DECLARED = frozenset({"hooks", "effects"})
_FOOTER_KEYS = frozenset({"events", "outcome", "error"})
_PLAIN: frozenset[type] = frozenset({str, bool, type(None)})  # the values that need no second look
_VALUES: frozenset[type] = _PLAIN | {int, float, list}
_ANY_VALUE = "null, true, false, a finite number, a string, or a flat list of those"
_EFFECTS: dict[str, frozenset[type]] = {
    "training": frozenset({bool}),
    "submodules": frozenset({str}),
    "grad_enabled": frozenset({bool}),
    "autocast": frozenset({bool}),
    "random": frozenset({float}),
    "global_step": frozenset({int}),
    "current_epoch": frozenset({int}),
    "grads": frozenset({str}),
    "params": frozenset({int}),
    "lr": frozenset({list}),
    "trainable": frozenset({list}),
    "gradients": frozenset({list}),
    "device": frozenset({str}),
    "stage": frozenset({str, type(None)}),
    "metrics": frozenset({list}),
    "values": frozenset({list}),
    "metrics_graph": frozenset({bool}),
    "experiment": frozenset({str}),
    "bar": frozenset({list}),
    "precision": frozenset({int, str}),
    "use_amp": frozenset({bool}),
    "datamodule": frozenset({bool}),
    "global_rank": frozenset({int}),
    "local_rank": frozenset({int}),
}
_ITEMS: dict[str, tuple[frozenset[type], str]] = {  # of those effects that are lists
    "lr": (frozenset({int, float}), "number"),
    "trainable": (frozenset({int, float}), "number"),
    "gradients": (_VALUES - {list}, "value"),
    "metrics": (frozenset({str}), "string"),
    "values": (_VALUES - {list}, "value"),
    "bar": (frozenset({str}), "string"),
}
_IN_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    str: "a string",
    type(None): "null",
}
_FOREIGN = (
    (b"\xef\xbb\xbf", "starts with a byte order mark; accepted: UTF-8 without one"),
    (b"\xff\xfe", "is UTF-16 text; accepted: UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; accepted: UTF-8"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it first"),
)


class Header(NamedTuple):
    """The first line: which scenario was trained, by which trainer, and what its recorder can see."""

    suite: str
    scenario: dict[str, Any]  # the whole scenario; has a "name"
    trainer: dict[str, str]  # "name" and "version"
    declares: dict[str, list[str]]  # "hooks", "effects", and perhaps "lacks"
    environment: dict[str, str]


class Event(NamedTuple):
    """One line in the middle: the begin (B) or end (E) of a span, or an instant (I)."""

    seq: int
    ph: str
    rank: int
    receiver: str
    hook: str
    depth: int
    args: dict[str, Any]
    fx: dict[str, Any]


class Footer(NamedTuple):
    """The last line: how many events precede it, and whether the run returned or raised."""

    events: int
    outcome: str
    error: str


class Malformed(ValueError):
    """What is wrong with a line. Whoever knows which file and line it is raises a TraceError of it."""


def _show(value: object) -> str:
    """`value` in a message: a scalar as JSON, cut when long; a container only by its kind and size."""
    if isinstance(value, dict):
        return f"an object of {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _refuse(field: str, given: object, accepted: str) -> NoReturn:
    raise Malformed(f"{field} is {_show(given)}; accepted: {accepted}")


# ---- one line: bytes -> object ---------------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; JSON readers disagree on what a repeated key means, so it is refused."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Malformed(f"the key {_show(twice)} occurs twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f'{name} is not JSON; accepted: a finite number, or a string such as "nan"')


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant).raw_decode
encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def parse(line: bytes) -> dict[str, Any]:
    """The JSON object on this line; raises Malformed."""
    try:
        text = line.decode("utf-8").strip(" \t\r\n")
        row, end = _decode(text)
        if end != len(text):
            raise json.JSONDecodeError("more follows the object", text, end)
        if "\\" in text:  # only an escape can smuggle in half a surrogate pair
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise Malformed(f"is nested too deeply; accepted: at most {MAX_NESTING} levels") from None
    except ValueError as error:
        raise Malformed(_why_unreadable(line, error)) from None
    if type(row) is not dict:
        raise Malformed(f"is {_show(row)}; accepted: a JSON object on each line")
    return row


def _why_unreadable(line: bytes, error: ValueError) -> str:
    """Why no JSON object could be read: first what the bytes give away, then what the parser said."""
    if isinstance(error, Malformed):
        return str(error)
    for sign, meaning in _FOREIGN:
        if line.startswith(sign):
            return meaning
    if b"\0" in line:
        return "holds NUL bytes; accepted: UTF-8 text, not a binary file"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
    if isinstance(error, UnicodeEncodeError):
        return "escapes half of a surrogate pair (\\ud800 to \\udfff); accepted: whole characters"
    if not line.strip():
        return "is blank; accepted: a JSON object on each line"
    if not isinstance(error, json.JSONDecodeError):  # the limit on the digits of an int
        return "holds an integer of thousands of digits; accepted: numbers that fit into a double"
    cut = "" if line.endswith(b"\n") else "the file is cut off in the middle of this line, which "
    return f"{cut}is not JSON: {error.msg} at column {error.colno}"


# ---- one object: is it a header, an event, a footer? -----------------------------------------


def _check_keys(
    what: str, row: dict[str, Any], required: frozenset[str], optional: frozenset[str] = frozenset()
) -> None:
    accepted = required | optional
    missing, unknown = sorted(required - row.keys()), sorted(row.keys() - accepted)
    if missing:
        raise Malformed(f"{what} lacks {', '.join(missing)}; accepted: {', '.join(sorted(accepted))}")
    if unknown:
        names = ", ".join(_show(name) for name in unknown[:5])
        raise Malformed(f"{what} has unknown keys {names}; accepted: {', '.join(sorted(accepted))}")


def _count(field: str, value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        _refuse(field, value, f"an integer from 0 to {MAX_COUNT}")
    return value


def _text(field: str, value: object, empty: bool = False) -> str:
    if type(value) is not str or not (value or empty):
        _refuse(field, value, "a string" if empty else "a string that is not empty")
    return value


def _object(field: str, value: object) -> dict[str, Any]:
    if type(value) is not dict:
        _refuse(field, value, "an object")
    return value


def _check_json(field: str, value: object, nesting: int = 1) -> None:
    """Any JSON value, as long as its numbers are finite and its nesting is sane."""
    if nesting > MAX_NESTING:
        raise Malformed(f"{field} is nested too deeply; accepted: at most {MAX_NESTING} levels")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_json(field, item, nesting + 1)
    elif isinstance(value, (int, float)) and not -MAX_NUMBER <= value <= MAX_NUMBER:
        _refuse(f"{field}: a number", value, "numbers that fit into a double")


def header_of(row: dict[str, Any]) -> Header:
    """The header in this object; raises Malformed. Format and version come first: they explain the rest."""
    if row.get("format") != FORMAT:
        given = _show(row["format"]) if "format" in row else "missing"
        raise Malformed(f'is no header: "format" is {given}; accepted: "{FORMAT}", on the first line')
    version = row.get("version")
    if type(version) is not int or version != VERSION:
        raise Malformed(f"the format version is {_show(version)}; accepted: version {VERSION}")
    _check_keys("the header", row, _HEADER_KEYS)
    scenario = _object("scenario", row["scenario"])
    _text("scenario.name", scenario.get("name"))
    _check_json("scenario", scenario)
    trainer = _object("trainer", row["trainer"])
    _check_keys("trainer", trainer, frozenset({"name", "version"}))
    _text("trainer.name", trainer["name"])
    _text("trainer.version", trainer["version"], empty=True)
    declares = _object("declares", row["declares"])
    _check_keys("declares", declares, _DECLARED, _DECLARED | {"lacks"})
    for field, names in declares.items():
        if type(names) is not list:
            _refuse(f"declares.{field}", names, "a list of strings")
        for name in names:
            _text(f"an entry of declares.{field}", name)
    environment = _object("environment", row["environment"])
    for key, value in environment.items():
        _text(f"environment {_show(key)}", value, empty=True)
    return Header(_text("suite", row["suite"]), scenario, trainer, declares, environment)


def event_of(row: dict[str, Any], seq: int) -> Event:
    """The event in this object, which must be number `seq`; raises Malformed."""
    row.setdefault("args", {})
    row.setdefault("fx", {})
    if row.keys() != _EVENT_KEYS:
        if "format" in row:
            raise Malformed(f"is a second header (version {_show(row.get('version'))}): "
                             "traces were joined; accepted: one trace per file")  # fmt: skip
        _check_keys("the event", row, _REQUIRED, _EVENT_KEYS)
    fields = _EVENT_OF(row)
    given, ph, rank, receiver, hook, depth, args, fx = fields
    if type(given) is not int or given != seq:
        _refuse("seq", given, f"{seq} here, for events are numbered 0, 1, 2, ... without a gap")
    if ph not in PHASES:
        _refuse("ph", ph, '"B" (begin), "E" (end) or "I" (instant)')
    if type(rank) is not int or not 0 <= rank <= MAX_COUNT:
        _count("rank", rank)
    if type(receiver) is not str or not _RECEIVER(receiver):
        _refuse("receiver", receiver, _RECEIVERS)
    if type(hook) is not str or not (hook.isidentifier() and hook.isascii()):
        _refuse("hook", hook, "an ASCII identifier")
    if type(depth) is not int or not 0 <= depth <= MAX_COUNT:
        _count("depth", depth)
    _check_values("args", args, {})
    _check_values("fx", fx, _EFFECTS)
    _check_effects(fx)
    return Event._make(fields)


def _check_values(field: str, values: object, known: Mapping[str, frozenset[type]]) -> None:
    """Values are scalars or flat lists of them; those whose name is `known` have a type of their own."""
    if type(values) is not dict:
        _refuse(field, values, "an object")
    for name, value in values.items():
        kind = type(value)
        if kind not in known.get(name, _VALUES):
            accepted = _in_words(name, known[name]) if name in known else _ANY_VALUE
            _refuse(f"{field} {_show(name)}", value, accepted)
        if kind is list:
            for item in value:
                if not _is_scalar(item):
                    _refuse(f"an item of {field} {_show(name)}", item, _ANY_VALUE)
        elif kind not in _PLAIN and not -MAX_NUMBER <= value <= MAX_NUMBER:
            _refuse(f"{field} {_show(name)}", value, _ANY_VALUE)


def _in_words(name: str, kinds: frozenset[type]) -> str:
    if name in _ITEMS:
        return f"a list of {_ITEMS[name][1]}s"
    return " or ".join(sorted(_IN_WORDS[kind] for kind in kinds))


def _is_scalar(value: Any) -> bool:
    kind = type(value)
    return kind in _PLAIN or ((kind is int or kind is float) and -MAX_NUMBER <= value <= MAX_NUMBER)


def _check_effects(fx: dict[str, Any]) -> None:
    """What the types of the known effects leave open."""
    if fx.get("grads", "none") not in GRADS:
        _refuse('fx "grads"', fx["grads"], '"none", "zero" or "set"')
    for name, (kinds, word) in _ITEMS.items():
        for item in fx.get(name, ()):
            if type(item) not in kinds:
                _refuse(f'an item of fx "{name}"', item, f"a {word}")


def footer_of(row: dict[str, Any], events: int) -> Footer:
    """The footer in this object, which must count `events` of them; raises Malformed."""
    _check_keys("the footer", row, _FOOTER_KEYS)
    footer = Footer(_count("events", row["events"]), row["outcome"], _text("error", row["error"], empty=True))
    if footer.events != events:
        raise Malformed(f"the footer counts {footer.events} events, but {events} precede it")
    if footer.outcome not in OUTCOMES:
        _refuse("outcome", footer.outcome, '"returned" or "raised"')
    if footer.outcome == "returned" and footer.error:
        _refuse("error", footer.error, '"" when the outcome is "returned"')
    return footer
