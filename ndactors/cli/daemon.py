"""The daemon's command line: what it accepts, and where its file and its state are by default."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from .. import __version__

CONFIG_PLACES = ("nextdeploy.yml", "/etc/nextdeploy/nextdeploy.yml")


def parse(argv: list[str], variables: Mapping[str, str]) -> argparse.Namespace:
    """Exits with 2 on wrong usage, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="nextdeployd",
        description="Runs, serves and watches the apps of one nextdeploy.yml.",
        epilog="example: nextdeployd --config shop.yml --env=staging --set apps.shop.replicas=3",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, metavar="PATH", help=f"default: {', then '.join(CONFIG_PLACES)}")
    parser.add_argument(
        "--env",
        default=variables.get("NEXTDEPLOY_ENV") or "dev",
        metavar="NAME",
        help="which overlay of `environments:` applies (default: $NEXTDEPLOY_ENV, else dev)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override any key; the value is YAML; repeatable",
    )
    parser.add_argument("--check", action="store_true", help="validate, print the effective configuration, and exit")
    ending = parser.add_argument_group("at its end")
    ending.add_argument("--leave-edge", action="store_true", help="leave edge and host processes running")
    ending.add_argument("--stop-apps", action="store_true", help="stop the containers too")
    parser.add_argument("--version", action="version", version=f"nextdeploy {__version__}")
    return parser.parse_args(argv)


def config_path(given: Path | None) -> Path:
    """The file named, or the first of the default places that exists, or the first of them."""
    if given is not None:
        return given
    places = [Path(place) for place in CONFIG_PLACES]
    return next((place for place in places if place.exists()), places[0])


def state_folder(setting: str | None, config: Path, variables: Mapping[str, str], *, root: bool) -> Path:
    """Where state is kept; a relative setting counts from the configuration's folder."""
    if setting is not None:
        return (config.resolve().parent / Path(setting).expanduser()).resolve()
    if root:
        return Path("/var/lib/nextdeploy")
    base = variables.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "nextdeploy"
