"""`quicbus cert list`, `revoke` and `rotate`: what the authority has issued, and what becomes of it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from quicbus.commands import common_options
from quicbus.exceptions import CredentialError
from quicbus_cli.cert_folder import authority_of, data_dir_option, folder_of, moment, tell_how_it_spreads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.identity import Authority, Revocation, TrustStore
    from quicbus.identity.issued_log import IssuedCertificate

__all__ = ["list_issued", "revoke", "rotate"]

_WIDTH_IN_PIPES = 200


@click.command(name="list", short_help="List what was issued, and what is revoked.")
@click.option("--all", "all_of_them", is_flag=True, help="Every certificate, not only the latest of each key.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@common_options
def list_issued(all_of_them: bool, data_dir: str | None, as_json: bool) -> None:
    """List the certificates that the authority of the data folder has issued, the latest last."""
    folder = folder_of(data_dir)
    issuer = authority_of(folder)
    from quicbus.identity import IssuedLog  # cryptography takes a while to load

    trust, now = _trust(folder, issuer), dt.datetime.now(dt.UTC)
    entries: Sequence[IssuedCertificate] = IssuedLog(folder).entries()
    if not all_of_them:
        entries = sorted({one.key_id: one for one in entries}.values(), key=lambda one: one.issued_at)
    rows = [_row(one, trust, now) for one in entries]
    known = {one.key_id for one in entries}
    rows += [_revoked_row(one) for one in trust.revoked if one.key_id.hex() not in known]
    if as_json:
        click.echo(json.dumps(rows))
        return
    columns = ("role", "name", "key", "issued", "valid to", "state")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(
            row["role"], row["name"], row["key"], _short(row["issued"]), _short(row["not_after"]), row["state"]
        )
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH_IN_PIPES) if not console.is_terminal else console.width
    console.print(table)


@click.command(short_help="Revoke a node or client: it is locked out everywhere within seconds.")
@click.argument("which", nargs=-1, required=True, metavar="NAME|FILE|KEYID...")
@click.option("--force", is_flag=True, help="Also the node of this data folder itself.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print what was revoked as a JSON array.")
@common_options
def revoke(which: tuple[str, ...], force: bool, data_dir: str | None, as_json: bool) -> None:
    """Revoke keys, and so every certificate that was or will be issued for them. There is no way back: a holder that
    is to come back gets a new key.

    A name stands for all its keys, those of the node and of the client; node/NAME and client/NAME for one of them. A
    running broker of this data folder tells the mesh; nodes that are away learn it when they come back.

    \b
    quicbus cert revoke alice
    quicbus cert revoke stolen.pem
    """
    folder = folder_of(data_dir)
    issuer = authority_of(folder)
    from quicbus.identity.folder_trust import add_revocations  # cryptography takes a while to load

    now = dt.datetime.now(dt.UTC)
    found = {one.key_id: one for each in which for one in _keys(folder, issuer, each, now)}
    if not force:
        _keep_own_node(folder, found)
    add_revocations(folder, list(found.values()), now)
    tokens = _tokens_of(folder, found, now)
    if as_json:
        click.echo(
            json.dumps([{"role": one.role, "name": one.name, "key": one.key_id.hex()} for one in found.values()])
        )
    else:
        for one in found.values():
            click.echo(f"revoked {one.role or 'key'} {one.name or ''}".rstrip() + f" ({one.key_id.hex()})")
        tell_how_it_spreads(folder)
    for token in tokens:
        click.echo(f"the join token {token} that it used is still valid: quicbus token revoke {token}", err=True)


@click.command(short_help="Have a new authority follow the present one.")
@click.option(
    "--overlap",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Days until the new one issues; unless given 60, or as long as the longest certificate can be renewed.",
)
@click.option("--status", is_flag=True, help="Only tell whether one authority follows another now.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the state as a JSON object.")
@common_options
def rotate(overlap: float | None, status: bool, data_dir: str | None, as_json: bool) -> None:
    """Make the next authority of the mesh. It is trusted at once, issues after the overlap, and the old one goes when
    nothing that it signed is valid or renewable any more. The broker of the data folder does all that by itself.

    This is housekeeping, not a remedy: whoever has stolen an authority's key keeps it. Then make a new mesh.
    """
    folder = folder_of(data_dir)
    issuer = authority_of(folder)
    from quicbus.identity import rotation as rotations  # cryptography takes a while to load

    now = dt.datetime.now(dt.UTC)
    if status:
        found = rotations.read_rotation(folder)
    else:
        usual = rotations.usual_overlap_days(folder, now)
        found = rotations.start_rotation(folder, now, overlap_days=overlap)
        if overlap is not None and overlap < usual:
            click.echo(
                f"who does not renew in these {overlap:g} days can't verify brokers afterwards and has to join again; "
                f"{usual:.0f} days lock out nobody",
                err=True,
            )
    facts: dict[str, Any] = {"mesh": issuer.mesh, "under_way": found is not None}
    if found is not None:
        facts |= {
            "old": found.old,
            "next": found.next,
            "issues_from": moment(found.switch_at).isoformat(),
            "has_switched": found.has_switched,
            "old_leaves": moment(rotations.old_ends_at(folder, found)).isoformat(),
        }
    if as_json:
        click.echo(json.dumps(facts))
    elif found is None:
        click.echo(f"authority {issuer.key_id.hex()} issues; none follows it now")
    else:
        verb = "has issued since" if found.has_switched else "is trusted now and issues from"
        click.echo(f"authority {found.next} {verb} {moment(found.switch_at):%Y-%m-%d}")
        click.echo(
            f"authority {found.old} is trusted until {moment(rotations.old_ends_at(folder, found)):%Y-%m-%d} or later"
        )
        tell_how_it_spreads(folder)


def _keys(folder: Path, issuer: Authority, which: str, now: dt.datetime) -> list[Revocation]:
    from quicbus.identity.revoking import keys_of_file, keys_of_name

    path = Path(which)
    if path.is_file():
        return keys_of_file(folder, path.read_bytes(), which, issuer.mesh, now)
    return keys_of_name(folder, issuer, which, now)


def _keep_own_node(folder: Path, found: dict[bytes, Revocation]) -> None:
    from quicbus.identity import describe_certificate

    path = folder / "node.pem"
    if not path.is_file():
        return
    own = describe_certificate(path.read_bytes(), source=str(path))
    if bytes.fromhex(own.id) in found:
        raise CredentialError(
            f"{own.name} is the node of this data folder, which holds the authority: revoked, it could tell nobody. "
            "--force revokes it all the same"
        )


def _tokens_of(folder: Path, found: dict[bytes, Revocation], now: dt.datetime) -> list[str]:
    from quicbus.identity import TokenStore

    keys = {key_id.hex() for key_id in found}
    return [one.id for one in TokenStore(folder).list() if one.state(now) == "valid" and keys & one.used_by.keys()]


def _trust(folder: Path, issuer: Authority) -> TrustStore:
    from quicbus.identity.folder_files import one_error
    from quicbus.identity.folder_trust import read_trust

    with one_error(folder):
        return read_trust(folder, issuer.mesh, issuer.authorities_pem)


def _row(one: IssuedCertificate, trust: TrustStore, now: dt.datetime) -> dict[str, Any]:
    revocation = trust.revocation(bytes.fromhex(one.key_id))
    stamp = now.timestamp()
    if revocation is not None:
        state = "revoked"
    elif stamp <= one.not_after:
        state = "valid"
    else:
        state = "renewable" if stamp <= one.renewable_until else "expired"
    return {
        "role": str(one.role),
        "name": one.name,
        "key": one.key_id,
        "serial": one.serial,
        "authority": one.issuer,
        "issued": moment(one.issued_at).isoformat(),
        "not_after": moment(one.not_after).isoformat(),
        "state": state,
        "revoked_at": None if revocation is None else revocation.time.isoformat(),
    }


def _revoked_row(one: Revocation) -> dict[str, Any]:
    """A key that was revoked and is not in the log."""
    return {
        "role": one.role,
        "name": one.name,
        "key": one.key_id.hex(),
        "serial": "",
        "authority": "",
        "issued": "",
        "not_after": "",
        "state": "revoked",
        "revoked_at": one.time.isoformat(),
    }


def _short(text: str) -> str:
    return text[:16].replace("T", " ")
