"""`vwkit new`: commented specs to start from."""

from __future__ import annotations

from importlib.resources import files

import click

__all__ = ["jobs", "new_command"]


def jobs() -> dict[str, str]:
    """Return the specs that come with vwkit, by the name of their job."""
    folder = files("vwkit") / "specs"
    found = {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    return dict(sorted(found.items()))


@click.command("new")
@click.argument("job", required=False)
def new_command(job: str | None) -> None:
    """Print a commented spec for JOB; without one, list the jobs."""
    known = jobs()
    if job is None:
        for name, text in known.items():
            click.echo(f"{name:<22} {text.splitlines()[0].lstrip('# ')}")
        return
    if job not in known:
        raise click.UsageError(f"no job is named {job!r}; there are {', '.join(known)}")
    click.echo(known[job], nl=False)
