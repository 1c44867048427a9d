"""The root of the command line: finds commands by entry points, shows them in groups, turns failures into exit codes.

Exit codes: 0 done, 1 failed with one line on stderr, 2 wrong usage with one line on stderr, 130 and 143 ended by a
signal before the command was done.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points, version
from typing import TYPE_CHECKING

import click

from quicbus.exceptions import ConnectFailed, QuicbusError, UsageError
from quicbus.logs import harmless
from quicbus.process import Interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALIASES", "SECTIONS", "Commands", "main"]

ALIASES = {"pub": "publish", "sub": "subscribe"}
SECTIONS = {
    "Begin here": ("demo", "broker"),
    "Messages": ("publish", "subscribe", "request", "reply"),
    "Look and measure": ("ping", "peers", "bench", "doctor"),
    "Keys and certificates": ("cert", "token"),
    "Who may do what": ("permissions", "reload"),
}
_OTHERS = "Further commands"


class Commands(click.Group):
    """A group whose commands are the entry points of `quicbus.commands`."""

    def __init__(self, **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # handed on as they came
        self._points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group="quicbus.commands")}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._points)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        point = self._points.get(ALIASES.get(cmd_name, cmd_name))
        if point is None:
            return None
        command: click.Command = point.load()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name, [*self._points, *ALIASES], n=1)
            remedy = f"did you mean {close[0]}?" if close else "`quicbus --help` lists the commands"
            raise click.UsageError(f"no such command: {name}; {remedy}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        grouped = {name for names in SECTIONS.values() for name in names}
        sections = {**SECTIONS, _OTHERS: tuple(name for name in self.list_commands(ctx) if name not in grouped)}
        short = {name: alias for alias, name in ALIASES.items()}
        for title, names in sections.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    label = f"{name}, {short[name]}" if name in short else name
                    rows.append((label, command.get_short_help_str(formatter.width)))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=24)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("quicbus"), "-V", "--version", prog_name="quicbus")
def root() -> None:
    """Publish and subscribe over QUIC, encrypted and authenticated.

    Without further settings the commands talk to the broker on this machine. `quicbus COMMAND --help` tells more.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Nothing but `SystemExit` of a second Ctrl-C comes out of it."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return 0
    return code


def _run(arguments: list[str]) -> int:
    given = list(arguments)
    try:
        # Not root.main(): it turns a closed pipe into exit code 1.
        with root.make_context("quicbus", arguments) as context:
            result = root.invoke(context)
    except (click.exceptions.Exit, Interrupted) as ended:
        return ended.exit_code if isinstance(ended, click.exceptions.Exit) else 128 + ended.signal
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        raise
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
        return _explain(_first(error), is_debug="--debug" in given)
    return result if isinstance(result, int) else 0


def _first(error: Exception) -> Exception:
    """Return what a group of exceptions is about."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _explain(error: Exception, *, is_debug: bool) -> int:
    """Say what went wrong in one line, and return the exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message())
            return 0
        case click.ClickException():
            return _fail(2 if isinstance(error, click.UsageError) else 1, _usage_sentence(error), _command_of(error))
        case UsageError():
            return _fail(2, str(error))
        case ConnectFailed():
            return _fail(1, f"{error}; {error.remedy or 'is a broker running there? Start one with `quicbus broker`'}")
        case QuicbusError():
            return _fail(1, str(error))
        case OSError():
            return _fail(1, _os_sentence(error))
    remedy = "" if is_debug else " (--debug shows where)"
    return _fail(1, f"unexpected {type(error).__name__}: {error}{remedy}")


def _fail(code: int, sentence: str, command: str = "quicbus") -> int:
    click.echo(f"{command}: {harmless(' '.join(sentence.split()))}", err=True)
    return code


def _command_of(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "quicbus"


def _usage_sentence(error: click.ClickException) -> str:
    sentence = error.format_message()
    if not sentence:
        return "wrong usage; --help tells how"
    sentence = sentence[:1].lower() + sentence[1:].rstrip(".")
    # Click itself says of these only what is wrong.
    bare = isinstance(error, click.MissingParameter) or "unexpected extra argument" in sentence
    return f"{sentence}; `{_command_of(error)} --help` tells how" if bare else sentence


def _os_sentence(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{(error.strerror or str(error)).lower()}"


def _forget_stdout() -> None:
    """Let the interpreter's last flush go nowhere: the reader of a pipe has left, which is how it says "enough"."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
