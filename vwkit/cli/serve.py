"""`vwkit serve`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import click

from vwkit.cli.progress import logs_shown
from vwkit.cli.signals import stopping
from vwkit.cli.text import printable

__all__ = ["serve_command"]


@click.command("serve")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--host", help="Address to listen on; by default only this machine can ask.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--app", default="web", show_default=True, help="Which app serves it.")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter of the app.")
@click.option("--open", "browse", is_flag=True, help="Open it in the browser.")
def serve_command(
    run: Path,
    host: str | None,
    port: int | None,
    app: str,
    params: tuple[str, ...],
    browse: bool,
) -> None:
    """Serve RUN as a web page and a JSON API, until Ctrl-C or SIGTERM (exit status 0)."""
    from vwkit.base import create
    from vwkit.jobs import Job, use_job
    from vwkit.run import Run
    from vwkit.source import from_dict, override

    given: dict[str, Any] = dict(override(from_dict({}, Path()), params).data)
    given.update({} if host is None else {"host": host})
    given.update({} if port is None else {"port": port})
    made: Any = create("app", app, **given)
    opened = Run.open(run)

    def ready(url: str) -> None:
        click.echo(printable(f"serving {run} at {url} until Ctrl-C"))
        if browse:
            import webbrowser

            webbrowser.open(url)

    stop = threading.Event()
    with stopping(stop), logs_shown(), use_job(Job(stop=stop)):
        made._serve(opened, ready)
