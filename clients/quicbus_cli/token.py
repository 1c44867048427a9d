"""`quicbus token`: join tokens, with which a further machine becomes a node or gets a credential."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from quicbus.commands import common_options
from quicbus.exceptions import CredentialError, DataFolderError, InvalidSetting, QuicbusError
from quicbus_cli.cert_folder import authority_of, data_dir_option, folder_of, moment
from quicbus_cli.connecting import connect, connection_options, load_client_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus import Peer
    from quicbus.identity import StoredToken

__all__ = ["token"]

SEEDS_OF_TOKEN = 8
"""Addresses that a token holds, of this node first: enough to find one that answers, and still a short line."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PIPED_WIDTH = 200


@click.group(short_help="Make, list and revoke join tokens.")
def token() -> None:
    """Make, list and revoke join tokens: `quicbus broker --join TOKEN` makes a further machine a node of the mesh.

    They are made in the data folder that holds the authority: that of the first `quicbus broker`.
    """


@token.command(short_help="Print a token and how it is used.")
@click.option("--role", type=click.Choice(["node", "client"]), default="node", show_default=True)
@click.option("--name", metavar="NAME", default="", help="Name of who joins; with more uses NAME-1, NAME-2 ...")
@click.option("--ttl", metavar="TIME", default="1h", show_default=True, help="How long it can be used: 30m, 1h, 7d.")
@click.option("--uses", type=click.IntRange(min=1), default=1, show_default=True, help="How many may join with it.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), help="Days that certificates live; 30 unless given."
)
@click.option("--seed", multiple=True, metavar="HOST:PORT", help="Where to join; else the local broker is asked.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@connection_options
def create(
    role: str,
    name: str,
    ttl: str,
    uses: int,
    days: float | None,
    seed: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Print a new token. Who has it can join: hand it on in private. It is not shown again.

    \b
    quicbus token create --name osaka
    quicbus token create --role client --name sensor --uses 20 --ttl 1d
    """
    ttl_s = parse_time(ttl)
    settings = load_client_settings(options)
    folder = folder_of(options.get("data_dir"))
    issuer = authority_of(folder)
    from quicbus.identity import Role, TokenStore  # cryptography takes a while to load
    from quicbus.identity.authority import CERTIFICATE_DAYS

    seeds = [_checked_seed(each) for each in seed] or _known_seeds(settings)
    made = TokenStore(folder).create(
        mesh=issuer.mesh,
        seeds=seeds,
        authorities=issuer.authorities_der,
        role=Role(role),
        name=name,
        uses=uses,
        ttl_s=ttl_s,
        days=days or CERTIFICATE_DAYS,
    )
    command = "quicbus broker --join TOKEN" if role == "node" else "quicbus cert enroll TOKEN"
    if as_json:
        facts = {"token": made.text, "id": made.id.hex(), "role": role, "name": name, "uses": uses, "seeds": seeds}
        click.echo(json.dumps({**facts, "expires_at": made.expires_at.isoformat(), "command": command}))
    else:
        # The token alone on stdout: scripts take it from there.
        click.echo(made.text)
        times = "once" if uses == 1 else f"{uses} times"
        click.echo(
            f"token {made.id.hex()}: a secret, good {times} until {made.expires_at:%Y-%m-%d %H:%M} UTC", err=True
        )
        click.echo(f"use it: {command}", err=True)
    if all(_is_loopback(each) for each in seeds):
        click.echo("it works on this machine only: a broker that others reach is named with --seed HOST:PORT", err=True)


@token.command(name="list", short_help="List tokens, who used them, and until when they are good.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@common_options
def list_tokens(data_dir: str | None, as_json: bool) -> None:
    """List the tokens of the last days. What redeems one is not kept, so it can't be shown again."""
    folder = folder_of(data_dir)
    authority_of(folder)
    from quicbus.identity import TokenStore  # cryptography takes a while to load

    now = dt.datetime.now(dt.UTC)
    rows = [_row(one, now) for one in TokenStore(folder).list()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table("id", "role", "name", "uses left", "expires", "state", "used by", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        expires = row["expires_at"][:16].replace("T", " ")
        left = f"{row['uses_left']} of {row['uses']}"
        names = ", ".join(one["name"] for one in row["used_by"])
        table.add_row(row["id"], row["role"], row["name"] or "(made up)", left, expires, row["state"], names)
    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else _PIPED_WIDTH
    console.print(table)


@token.command(short_help="Revoke a token, so that nobody joins with it any more.")
@click.argument("which", metavar="ID|NAME")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print what was revoked as a JSON array.")
@common_options
def revoke(which: str, data_dir: str | None, as_json: bool) -> None:
    """Revoke the token with this id (its beginning is enough), or all valid ones for this name.

    Who has joined with it stays: `quicbus cert revoke` locks out.
    """
    folder = folder_of(data_dir)
    authority_of(folder)
    from quicbus.identity import TokenStore  # cryptography takes a while to load

    revoked = TokenStore(folder).revoke(which)
    if not revoked:
        raise CredentialError(f"{which}: no valid token with this id or name; `quicbus token list` shows them")
    now = dt.datetime.now(dt.UTC)
    if as_json:
        click.echo(json.dumps([_row(one, now) for one in revoked]))
        return
    for one in revoked:
        click.echo(f"revoked token {one.id} ({one.role} {one.name})".replace(" )", ")"))


def parse_time(text: str) -> float:
    """Return seconds out of `90s`, `30m`, `1h`, `7d`; raises `InvalidSetting`, also for a number without its unit."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])", text.strip())
    if match is None:
        raise InvalidSetting("ttl", f"{text!r} is no time: 90s, 30m, 1h, 7d", "option --ttl")
    return float(match[1]) * _UNITS[match[2]]


def _checked_seed(seed: str) -> str:
    seed = seed.removeprefix("quic://")
    host, colon, port = seed.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    is_good = colon and host and port.isdecimal() and 0 < int(port) < 65_536 and (is_bracketed or ":" not in host)
    if not is_good or len(seed) > 300 or re.search(r"[\s/]", seed):
        raise InvalidSetting("seed", f"{seed[:80]!r} is not HOST:PORT or [IPV6]:PORT", "option --seed")
    return seed


def _known_seeds(settings: Any) -> list[str]:
    """Ask the local broker where it and others are reached."""

    async def ask() -> Sequence[Peer]:
        async with connect(settings, "quicbus token create") as bus:
            found: Sequence[Peer] = await bus.peers()
            return found

    try:
        found = asyncio.run(ask())
    except QuicbusError as error:
        raise DataFolderError(
            str(settings.data_dir or "of this machine"),
            f"no broker tells where to join ({error}); start it, name it with --url where it listens elsewhere, or say "
            "with --seed HOST:PORT where others reach one",
        ) from None
    alive = sorted((one for one in found if one.state == "alive"), key=lambda one: not one.is_self)
    seeds = [address for one in alive for address in one.addresses[: SEEDS_OF_TOKEN // 2]]
    seeds = [*dict.fromkeys(seeds)][:SEEDS_OF_TOKEN]
    if not seeds:
        raise InvalidSetting("seed", "no broker of the mesh can be dialed; name one with --seed HOST:PORT")
    return seeds


def _is_loopback(seed: str) -> bool:
    host = seed.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _row(one: StoredToken, now: dt.datetime) -> dict[str, Any]:
    return {
        "id": one.id,
        "role": str(one.role),
        "name": one.name,
        "uses": one.uses,
        "uses_left": one.uses_left,
        "state": one.state(now),
        "created_at": moment(one.created_at).isoformat(),
        "expires_at": moment(one.expires_at).isoformat(),
        "used_by": [{"name": name, "key": key_id} for key_id, name in one.used_by.items()],
    }
