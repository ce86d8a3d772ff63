"""Options from the command line, as scripts of the period take them: `add_argparse_args`, `from_argparse_args`."""

from __future__ import annotations

import inspect
from argparse import SUPPRESS, ArgumentParser, Namespace
from contextlib import suppress
from typing import Any, ClassVar, Self

__all__ = ["TakesArguments"]

_WORDS = {"none": None, "true": True, "false": False}.__getitem__


def parsed(text: str) -> Any:
    """None, True, False, an int or a float, where the text is one, or else the text."""
    for read in (_WORDS, int, float):
        with suppress(KeyError, ValueError):
            return read(text.lower())
    return text


class TakesArguments:
    """A class whose constructor's arguments can be given on the command line, each as `--name value`."""

    #: Names that the constructor takes, too, although its signature does not show them.
    _unlisted: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def add_argparse_args(cls, parent_parser: ArgumentParser) -> ArgumentParser:
        """A parser with the arguments of `parent_parser` and those of this class; one that is True or False
        needs no value to be True."""
        parser = ArgumentParser(parents=[parent_parser], add_help=False)
        group = parser.add_argument_group(cls.__name__)
        for name, parameter in _parameters(cls).items():
            default = None if parameter.default is parameter.empty else parameter.default
            flag: dict[str, Any] = {"nargs": "?", "const": True} if isinstance(default, bool) else {}
            kind = str if isinstance(default, str) else parsed
            group.add_argument(f"--{name}", default=default, type=kind, **flag)
        for name in cls._unlisted:
            group.add_argument(f"--{name}", default=SUPPRESS, type=parsed)
        return parser

    @classmethod
    def from_argparse_args(cls, args: Namespace | ArgumentParser, **kwargs: Any) -> Self:
        """An object made from those of the parsed arguments that its constructor takes; `kwargs` come first.

        A parser parses the command line.
        """
        given = vars(args.parse_args() if isinstance(args, ArgumentParser) else args)
        known = {*_parameters(cls), *cls._unlisted}
        return cls(**{**{name: value for name, value in given.items() if name in known}, **kwargs})


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(cls).parameters
    return {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
