"""Whose app is it, and who serves which domain: what one project's file may not take from another's. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .model import App


def taken_apps(project: str, apps: Collection[str], there: Mapping[str, App], own_file: Collection[str]) -> list[str]:
    """Why apps of these names cannot be ``project``'s. ``own_file``: those of the server's own file."""
    words = []
    for name in sorted(apps):
        if name in own_file:
            words.append(f"The app {name} is in the server's own file.")
        elif name in there and there[name].project != project:
            words.append(f"The app {name} belongs to another project.")
    return words


def strangers(apps: Collection[str], known: Collection[str] | None, only: Collection[str] | None) -> list[str]:
    """Apps that somebody would touch who may touch ``only`` these (None: all). ``known``: the apps of the project as it
    is on record; None: there is none. A project has volumes and a network that all of its apps share, so whoever is
    limited gets into none that has other apps, or had."""
    if only is None:
        return []
    if known is not None and not known:
        return sorted(apps)
    return sorted({*apps, *(known or ())} - set(only))


def taken_domains(apps: Mapping[str, App], there: Mapping[str, App]) -> list[str]:
    """Domains that ``apps`` ask for and that others serve at the same path."""
    places = {
        (domain.lower(), app.path): app.name for app in there.values() if app.name not in apps for domain in app.domains
    }
    words = []
    for app in apps.values():
        for domain in app.domains:
            other = places.get((domain.lower(), app.path))
            if other is not None:
                place = domain + (app.path if app.path != "/" else "")
                words.append(f"{place}, which {app.name} asks for, is served by another app already.")
    return words


def composed(own: Mapping[str, App], projects: Mapping[str, Mapping[str, App]]) -> dict[str, App]:
    """All apps there are. What the server's own file has comes first; the same name or place in a project is left out."""
    apps = dict(own)
    for _, theirs in sorted(projects.items()):
        for name, app in theirs.items():
            if name not in apps and not taken_domains({name: app}, apps):
                apps[name] = app
    return apps
