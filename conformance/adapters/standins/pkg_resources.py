"""The part of `pkg_resources` that an old release asks for, on `importlib.metadata`.

Only for environments whose setuptools no longer brings the real module: the launcher and
`lightning_compat` put this folder on the path there, and nowhere else.
"""

from importlib.metadata import Distribution, PackageNotFoundError, distribution

__all__ = ["DistributionNotFound", "declare_namespace", "get_distribution"]


class DistributionNotFound(Exception):
    """No such distribution is installed."""


def get_distribution(name: str) -> Distribution:
    """The installed distribution, of which callers read `version`."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise DistributionNotFound(name) from None


def declare_namespace(name: str) -> None:
    """Nothing to do: one folder holds the whole package here."""
