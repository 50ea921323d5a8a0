"""`nextdeploy init`: the three files that a project needs to be deployed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from .failures import FAILED, WRONG, Failure, printable
from .options import put_json, verb, wants_json

TEMPLATES = Path(__file__).parent / "templates"
DOMAIN = r"\*|(?:\*\.)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"


@verb("init", "init --domain shop.example.com --name shop")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", metavar="NAME", help="Of the app (default: the folder's name).")
@click.option("--domain", metavar="NAME", default="*", help="Where it is served (default: every host name).")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@click.pass_context
def command(ctx: click.Context, folder: Path, name: str | None, domain: str, force: bool) -> None:
    """Write nextdeploy.yml, Dockerfile and .dockerignore for what is in this folder.

    It looks for Next.js, other Node.js apps, Django, Flask, FastAPI, other Python programs, and static pages. What is
    there already stays, unless you say --force.
    """
    from .detecting import detect

    name = _name(name or folder.resolve().name, given=name is not None)
    if not re.fullmatch(DOMAIN, domain):
        raise click.UsageError(f"`{domain}` is no domain")
    found = detect(folder)
    if found is None and not (folder / "Dockerfile").is_file():
        raise Failure(
            "it is not clear what is in this folder: no package.json, no Python project, no index.html.",
            "Write a Dockerfile that listens on 0.0.0.0:$PORT, and run this again.",
            code=FAILED,
        )
    files: dict[str, str] = {}
    if found is not None:
        files["Dockerfile"] = filled(f"Dockerfile.{found.template}", found.values)
        files[".dockerignore"] = filled("dockerignore", {"more": "\n".join(found.ignore)})
    files["nextdeploy.yml"] = _project(name, domain, found.processes if found is not None else ())
    written, kept = _write(folder, files, force=force)
    notes = list(found.notes) if found is not None and "Dockerfile" in written else []
    title = found.title if found is not None else "Something with a Dockerfile"
    if wants_json(ctx):
        put_json({"detected": title, "written": written, "kept": kept, "notes": notes})
        return
    click.echo(f"{title}.")
    for each in written:
        click.echo(f"  wrote {each}")
    for each in kept:
        click.echo(f"  kept {each}, which was there (--force writes over it)")
    for note in notes:
        click.echo(printable(f"  note: {note}"))
    place = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    click.echo("Next:")
    click.echo(f"  {place}nextdeploy validate")
    click.echo(f"  {place}nextdeploy deploy --server ssh://root@your-server")


def filled(template: str, values: dict[str, str]) -> str:
    """``{{name}}`` replaced. Every one must have a value."""
    text = (TEMPLATES / template).read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _project(name: str, domain: str, processes: tuple[str, ...]) -> str:
    note = "  # every host name; write your own when you have one" if domain == "*" else ""
    block = (
        "\n".join(["    processes:", "      web: {}", *(f"      {line}" for line in processes)]) if processes else ""
    )
    values = {"project": name, "app": name, "domain": domain, "domain_note": note, "processes": block}
    return filled("nextdeploy.yml", values).rstrip() + "\n"


def _name(text: str, *, given: bool) -> str:
    name = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:40].strip("-")
    if given and name != text:
        raise click.UsageError(f"`{text}` is no name: use a-z, 0-9 and -, at most 40 characters")
    return name or "app"


def _write(folder: Path, files: dict[str, str], *, force: bool) -> tuple[list[str], list[str]]:
    written, kept = [], []
    for name, text in files.items():
        path = folder / name
        try:
            if not force and os.path.lexists(path):
                kept.append(name)
                continue
            with path.open("w" if force else "x") as file:
                file.write(text)
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}", code=WRONG) from error
        written.append(name)
    return written, kept
