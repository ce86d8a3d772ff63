"""Objects that hold settings: a dict, Namespace, OmegaConf config or dataclass instance, and their form as plain data.

Plain data is what `torch.load(weights_only=True)` reads: None, bool, int, float, str, tensors, `torch.dtype`,
`torch.device`, `torch.Size`, and list, tuple, dict, OrderedDict and set of those.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigurationError, did_you_mean

__all__ = [
    "KINDS", "AttributeDict", "Kinds", "build", "container", "is_config", "kind_of", "plain", "rebuilt", "settings",
    "settings_in",
]  # fmt: skip

#: Where the kinds of what was no plain data are noted: by the keys and indices that lead to it.
Kinds = dict[tuple[Any, ...], str]

_SCALARS = {type(None), bool, int, float, str, Tensor, nn.Parameter, torch.dtype, torch.device, torch.Size}


class AttributeDict(dict[str, Any]):
    """A dict whose entries are attributes, too; printed as a line `"name": value` for each.

    An entry that is called like a method of dict, such as "items", can only be read as an item. One that does not
    exist is an AttributeError or a KeyError that names the nearest. ("hparams")
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"there is no {name!r}{did_you_mean(name, self)}")

    def __missing__(self, name: str) -> Any:
        raise KeyError(f"there is no {name!r}{did_you_mean(name, self)}")

    __setattr__, __delattr__ = dict.__setitem__, dict.__delitem__

    def __repr__(self) -> str:
        return "\n".join(f'"{name}": {value}' for name, value in self.items())


# ---- which objects hold settings -------------------------------------------------------------------------


def is_config(value: Any) -> bool:
    """Whether it is OmegaConf's; that package is there if somebody made one."""
    omegaconf = sys.modules.get("omegaconf")
    return omegaconf is not None and omegaconf.OmegaConf.is_config(value)


def container(config: Any) -> Any:
    """An OmegaConf config as dicts and lists, with interpolations as they are written if one leads nowhere; anything
    else as it is."""
    if not is_config(config):
        return config
    to_container = sys.modules["omegaconf"].OmegaConf.to_container
    try:
        return to_container(config, resolve=True)
    except Exception:  # a resolver of the user's may raise anything
        return to_container(config)


def kind_of(value: Any) -> str | None:
    """The key in `KINDS` of an object that is no plain data, or of a dict; None for any other."""
    if is_config(value):
        return "OmegaConf"
    if type(value) is dict:
        return "dict"
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Mapping, Namespace)):
        return "dataclass"
    kinds = {Mapping: "AttributeDict", Namespace: "Namespace", Path: "Path", bytes: "bytes"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), None)


def settings(given: Any) -> Mapping[str, Any]:
    """The settings in an object, by name; an OmegaConf config is returned as it is.

    Raises ConfigurationError for an object that holds none, and for names that are no str.
    """
    kind, named = kind_of(given), given
    if kind == "Namespace":
        named = vars(given)
    elif kind == "dataclass":
        named = {f.name: getattr(given, f.name) for f in dataclasses.fields(given) if hasattr(given, f.name)}
    if kind is None or not isinstance(named, Mapping) or not all(isinstance(name, str) for name in named):
        raise ConfigurationError(f"save_hyperparameters: {type(given).__name__} {given!r}; accepted are the names of "
                                 "arguments of __init__, nothing for all of them, or one dict with names as keys, "
                                 "Namespace, OmegaConf config or dataclass instance")  # fmt: skip
    return named


def settings_in(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings in a file of YAML, such as a logger's `hparams.yaml`, which is read without PyYAML.

    Raises ConfigurationError for a file that has no names with values; ModuleNotFoundError without PyYAML.
    """
    content = Path(path).read_bytes()
    try:
        found = json.loads("{" + ",".join(content.decode().splitlines()) + "}")  # a line of JSON for each, as ours
    except ValueError:
        yaml = _imported("yaml", f"hparams_file={os.fspath(path)!r} needs PyYAML: pip install pyyaml")
        try:
            found = yaml.safe_load(content)
        except yaml.YAMLError as error:
            found = error
    if isinstance(found, dict) and all(isinstance(name, str) for name in found):
        return found
    raise ConfigurationError(f"hparams_file={os.fspath(path)!r} holds {found!r:.200}; names with values are accepted")


# ---- plain data, and back --------------------------------------------------------------------------------


def plain(value: Any, path: tuple[Any, ...], kinds: Kinds) -> Any:
    """`value` as plain data; what was of another kind is noted in `kinds`.

    Raises ConfigurationError for what has no such form.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind in (list, tuple):
        return kind(plain(item, (*path, index), kinds) for index, item in enumerate(value))
    if kind in (dict, OrderedDict):
        return kind((_plain_key(key), plain(item, (*path, key), kinds)) for key, item in value.items())
    if kind is set:
        return {_plain_key(item) for item in value}
    if isinstance(value, np.generic):
        return plain(value.item(), path, kinds)
    kinds[path] = str(kind_of(value))
    form = _FORMS.get(kinds[path], lambda value: dict(settings(value)))
    return plain(form(value), path, kinds)


def _plain_key(value: Any) -> Any:
    """A dict's key or a set's item, which nothing could lead to: it has to be plain itself."""
    kinds: Kinds = {}
    form = plain(value, (), kinds)
    if kinds:
        raise ConfigurationError(f"{type(value).__name__} {value!r} as a key or in a set is no plain data")
    return form


def rebuilt(form: Any, path: tuple[Any, ...], kinds: Mapping[tuple[Any, ...], str]) -> Any:
    """What `plain` made `form` of; an AttributeDict in place of a dataclass or a mapping of another kind."""
    if type(form) in (list, tuple):
        form = type(form)(rebuilt(item, (*path, index), kinds) for index, item in enumerate(form))
    elif type(form) in (dict, OrderedDict):
        form = type(form)((key, rebuilt(item, (*path, key), kinds)) for key, item in form.items())
    return build(kinds[path], form) if path in kinds else form


def build(kind: str, form: Any) -> Any:
    """An object of that kind.

    Raises ModuleNotFoundError, naming the extra, for an OmegaConf config where that is not installed; CheckpointError
    for a form that is none of that kind.
    """
    try:
        return KINDS[kind](form)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise CheckpointError(f"hyperparameters hold a {kind} made of {form!r:.80}: {error}") from error


def _imported(package: str, needed: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(needed) from None


_CONFIG = "these hyperparameters are an OmegaConf config: pip install 'refimpl-conformance[omegaconf]'"


#: The form of an object of a kind that is not settings by name (torch refuses bytes that are empty), and how an object
#: of each kind is made of its form.
_FORMS: dict[str, Any] = {"OmegaConf": container, "bytes": lambda value: value.decode("latin-1"), "Path": str}
KINDS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "AttributeDict": AttributeDict,
    "dataclass": AttributeDict,
    "Namespace": lambda form: Namespace(**form),
    "OmegaConf": lambda form: _imported("omegaconf", _CONFIG).OmegaConf.create(form),
    "bytes": lambda form: form.encode("latin-1"),
    "Path": Path,
}
