"""`vwkit cache ls | clear | trim`."""

from __future__ import annotations

import time

import click

from vwkit.cli.text import printable

__all__ = ["cache_command"]


@click.group("cache")
def cache_command() -> None:
    """Show, clear or trim the cache of finished stages and features."""


@cache_command.command("ls")
def list_command() -> None:
    """List the entries, the least recently used first."""
    from vwkit.cache import Cache

    cache = Cache()
    total = count = 0
    for entry in cache.entries():
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        click.echo(f"{used}  {entry.size:>14,}  {entry.kind:<8}  {entry.path.name}")
        total, count = total + entry.size, count + 1
    click.echo(printable(f"{cache.folder}: {count:,} entries, {total:,} bytes"))


@cache_command.command("clear")
def clear_command() -> None:
    """Remove every entry."""
    from vwkit.cache import Cache

    click.echo(f"{Cache().clear():,} bytes freed")


@cache_command.command("trim")
@click.argument("size")
def trim_command(size: str) -> None:
    """Remove the least recently used entries until at most SIZE (such as 10GB) is left."""
    from vwkit.cache import Cache
    from vwkit.spec import bytes_of

    click.echo(f"{Cache().trim(bytes_of(size)):,} bytes freed")
