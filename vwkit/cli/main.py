"""The entry point: commands found by name, errors as one clear line, exit statuses."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import click

from vwkit.cli import warned
from vwkit.cli.text import printable as _printable

__all__ = ["cli", "main"]

# Each command lives in its own module and is imported only when it is called.
_COMMANDS = {
    "add": ("add", "Add pictures to a finished run and its index."),
    "backends": ("backends", "List the backends, or describe one."),
    "cache": ("cache", "Show, clear or trim the cache."),
    "check": ("run", "Check a spec and say everything that is wrong with it."),
    "compact": ("compact", "Let go of what removed items left in a run's index."),
    "conformance": ("conformance", "Run the conformance suite on an installed backend."),
    "convert": ("files", "Convert a descriptor file to another format."),
    "demo": ("demo", "Build and score a search engine on real photographs."),
    "evaluate": ("search", "Score a finished run."),
    "inspect": ("files", "Say what a descriptor file, artifact or run is, and check it."),
    "new": ("new", "Print a commented spec to start from."),
    "plan": ("plan", "Say what running a spec would take, without running it."),
    "remove": ("add", "Remove items from a finished run and its index."),
    "report": ("search", "Write a run's report again."),
    "run": ("run", "Run a spec."),
    "schema": ("backends", "Print a JSON schema of specs, for editors."),
    "search": ("search", "Search a finished run by pictures or item ids."),
    "serve": ("serve", "Serve a finished run as a web page and a JSON API."),
    "status": ("status", "Say how a run is doing: at work, interrupted, failed or finished."),
}


# Characters of a line that is shown; names and values in files may be of any length.
_LONGEST = 2000


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"vwkit.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table above, so that help imports no command.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vwkit")
def cli() -> None:
    """Visual words and visual search from swappable backends.

    Start with `vwkit demo`, then `vwkit new search > search.yaml`.
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 usage, 1 data, 130 interrupted."""
    warnings.showwarning = warned.show
    sys.exit(_status(args))


def _status(args: list[str] | None) -> int:
    from vwkit.errors import VwkitError

    try:
        result = cli.main(args, prog_name="vwkit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except VwkitError as error:
        return _failed(_line(error), error.exit_status)
    except BrokenPipeError:
        # The reader of our output went away; say nothing, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(_printable(f"error: {where}{error.strerror or error}"), 1)
    except MemoryError:
        return _failed("error: out of memory; give run.memory, a smaller k or fewer rows", 1)
    finally:
        warned.show_waiting()
    return result if isinstance(result, int) else 0


def _failed(line: str, status: int) -> int:
    warned.show_waiting(line)
    click.echo(line, err=True)
    return status


def _line(error: Any) -> str:
    from vwkit.errors import SpecError

    if isinstance(error, SpecError):
        lines = str(error).split("\n")  # one per problem, each with its place
        return "\n".join(_printable(_shortened(line)) for line in lines)
    return "error: " + _printable(_shortened(" ".join(str(error).split("\n"))))


def _shortened(line: str) -> str:
    """Leave out the middle of a line that quotes something very long."""
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
