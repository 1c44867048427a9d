"""`quicbus broker`: a node as a process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING, Any

import click

from quicbus.commands import common_options, settings_of
from quicbus.exceptions import InvalidSetting, QuicbusError
from quicbus.logs import set_node
from quicbus.process import Interrupted, Stop, run_until_signal, told_by_hangup
from quicbus.setting_docs import SettingDescription, describe_settings
from quicbus_broker.banner import facts_of, print_json, print_ready, where
from quicbus_broker.broker import Broker
from quicbus_broker.collecting import collecting_in_quiet_moments
from quicbus_broker.events import LinkUp
from quicbus_broker.settings import BrokerSettings
from quicbus_broker.workers.seat import check_platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["broker"]

_COMMON = frozenset({"qlog_dir"})
_SWITCH = "true or false"
_LIST = "a list of texts"
_STOPPING = "stopping: delivering what is queued (Ctrl-C again ends at once)"


class CannotListen(QuicbusError):
    """The system does not give that address: it is in use, of another machine, or a name that nobody knows."""

    def __init__(self, listen: str, cause: OSError) -> None:
        super().__init__(listen, cause)
        self.listen = listen
        self.cause = cause

    def __str__(self) -> str:
        if self.cause.errno == errno.EADDRINUSE:
            return (
                f"UDP port {self.listen.rpartition(':')[2]} is in use ({self.listen}), by another `quicbus broker`? "
                "Stop that one, or choose another with --listen HOST:PORT (port 0 picks a free one)"
            )
        why = (self.cause.strerror or str(self.cause)).lower()
        return f"cannot listen at {self.listen}: {why}; --listen HOST:PORT names an address of this machine"


def _setting_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option for each setting of the broker; the loader converts and checks what they are given."""
    for setting in reversed(describe_settings(BrokerSettings)):
        if setting.name not in _COMMON:
            default = "" if setting.default == "none" else f" [{setting.default.strip('`')}]"
            function = _option(setting, setting.text + default)(function)
    return function


def _option(setting: SettingDescription, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option; what is not given is `None`, so that the file and the environment are heard."""
    if setting.allowed == _SWITCH:
        both = f"{setting.option}/--no-{setting.option.removeprefix('--')}"
        return click.option(both, setting.name, default=None, help=text)
    if setting.allowed == _LIST:
        text = f"{text} May be repeated."
        return click.option(
            setting.option, setting.name, metavar=_metavar(setting), multiple=True, callback=_flattened, help=text
        )
    return click.option(setting.option, setting.name, metavar=_metavar(setting), help=text)


def _flattened(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...] | None:
    """`--seed a --seed b` and `--seed a,b` alike. An empty one stays, to be refused: `--seed "$UNSET"` is no wish."""
    return tuple(each for text in given for each in text.replace(",", " ").split() or [text]) if given else None


def _metavar(setting: SettingDescription) -> str:
    if setting.name in ("listen", "seed", "advertise"):
        return "HOST:PORT"
    if setting.allowed.startswith("one of "):
        return setting.allowed.removeprefix("one of ").replace(", ", "|")
    kinds = {"a path": "PATH", "a number": "S", "a whole number": "N"}
    return kinds.get(setting.allowed.partition(",")[0], "TEXT")


@click.command(short_help="Run a broker.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: ready, then stopped with the statistics.")
@_setting_options
@common_options
def broker(as_json: bool, **options: Any) -> None:
    """Run a broker until Ctrl-C or SIGTERM; a second one ends it at once.

    The first start makes an authority, a node certificate and the local user's credential in the data folder. With
    --join TOKEN it becomes a node of the token's mesh instead, and with --seed it joins one with the node certificate
    that its data folder holds.

    Every option may also stand in quicbus.toml (`max_message_size = 4194304`) or the environment
    (`QUICBUS_MAX_MESSAGE_SIZE`).
    """
    if options["join"] is not None and not options["join"].strip():
        # Without a token a start would make a mesh of its own.
        raise InvalidSetting(
            "join", "the token is empty; give the one that `quicbus token create` printed", "option --join"
        )
    settings = settings_of(BrokerSettings, options, default_level="warning")
    if settings.workers > 1:
        _serve_workers(settings, as_json=as_json)
    else:
        run_until_signal(lambda stop: _serve(settings, stop, as_json=as_json))


async def _serve(settings: BrokerSettings, stop: Stop, *, as_json: bool) -> None:
    node = Broker(settings)
    try:
        async with _opened(node, stop), collecting_in_quiet_moments():
            set_node(node.node_id.hex())
            print_ready(facts_of(node), as_json=as_json)
            telling = asyncio.create_task(_tell_first_link(node), name="first-link") if not as_json else None
            hangup = asyncio.Event()
            reloading = asyncio.create_task(_reload_at(hangup, node, as_json=as_json), name="reload-at-hangup")
            try:
                with told_by_hangup(hangup.set):
                    await stop.wait()
            finally:
                reloading.cancel()
                if telling is not None:
                    telling.cancel()
            if not as_json:
                click.echo(_STOPPING)
    except OSError as error:
        if error.filename == settings.listen:
            raise CannotListen(settings.listen, error) from None
        raise
    if as_json:
        print_json(event="stopped", statistics=node.statistics())
    else:
        click.echo("stopped")


@contextlib.asynccontextmanager
async def _opened(node: Broker, stop: Stop) -> AsyncIterator[None]:
    """Enter the node: joining may take its time, and a signal ends it at once."""
    async with contextlib.AsyncExitStack() as entered:
        try:
            async with stop.cancelling():
                await entered.enter_async_context(node)
        except Interrupted:
            click.echo("quicbus: interrupted before the broker was ready; the same command goes on", err=True)
            raise
        yield


async def _tell_first_link(node: Broker) -> None:
    """Whoever joins a mesh wants to see that it worked; what follows stands in the log."""
    async with node.events() as events:
        with contextlib.suppress(QuicbusError):  # it is closing
            name = next((peer.name for peer in await node.bus.peers() if peer.linked), None)
            name = name or await anext((event.name async for event in events if isinstance(event, LinkUp)), None)
            if name is not None:
                click.echo(f"linked with {name}; the whole mesh: quicbus peers{where(facts_of(node))}")


async def _reload_at(hangup: asyncio.Event, node: Broker, *, as_json: bool) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        with contextlib.suppress(QuicbusError):  # it stands in the log
            lines = await node.reload()
            if not as_json:
                click.echo("\n".join(f"reloaded {line}" for line in lines))


def _serve_workers(settings: BrokerSettings, *, as_json: bool) -> None:
    check_platform()
    from quicbus_broker.workers.supervisor import run_workers  # it needs what other systems lack

    def ready(facts: dict[str, Any], workers: list[dict[str, Any]]) -> None:
        print_ready(facts, as_json=as_json, workers=workers)

    try:
        stopped = run_workers(settings, ready, lambda: None if as_json else click.echo(_STOPPING))
    except OSError as error:
        if isinstance(error.filename, str):
            raise CannotListen(error.filename, error) from None
        raise
    if as_json:
        print_json(event="stopped", workers=stopped)
    else:
        click.echo("stopped")
