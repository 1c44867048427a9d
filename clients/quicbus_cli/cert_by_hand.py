"""`quicbus cert authority`, `request`, `sign` and `install`: an authority whose key is kept where no broker runs."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import click

from quicbus.commands import common_options
from quicbus.exceptions import CredentialError
from quicbus_cli.cert_folder import authority_of, credential_facts, data_dir_option, folder_of

__all__ = ["authority", "install", "request", "sign"]

MAX_FILE_SIZE = 1024 * 1024


@click.command(short_help="Make an authority without a broker, to be kept offline.")
@click.option("--out", metavar="DIR", required=True, help="Folder for it; missing or empty.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), help="Days until it expires; ten years unless given."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as a JSON object.")
@common_options
def authority(out: str, days: float | None, as_json: bool) -> None:
    """Make the authority of a new mesh in a folder of its own. Who has the folder decides who is in the mesh.

    \b
    quicbus cert authority --out authority
    quicbus cert sign node-request.pem --node tokyo --out node.pem --data-dir authority
    """
    from quicbus.identity.authority import AUTHORITY_DAYS  # cryptography takes a while to load
    from quicbus.identity.by_hand import prepare_authority_folder

    made = prepare_authority_folder(Path(out), days=days or AUTHORITY_DAYS)
    if as_json:
        click.echo(json.dumps({"path": out, "mesh": made.mesh, "not_after": made.not_after.isoformat()}))
        return
    click.echo(f"{out}: authority of mesh {made.mesh}, valid until {made.not_after:%Y-%m-%d}")
    click.echo(f"use it: quicbus cert sign node-request.pem --node NAME --out node.pem --data-dir {out}")


@click.command(short_help="Write a signing request, for an authority elsewhere.")
@click.option("--client", metavar="FILE", help="The credential file that is wanted, or that is to be renewed.")
@click.option("--node", metavar="DIR", help="The data folder of the node.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as a JSON object.")
@common_options
def request(client: str | None, node: str | None, as_json: bool) -> None:
    """Write a request to be signed by `quicbus cert sign`. It is no secret; the private key stays here.

    \b
    quicbus cert request --client alice.pem     writes alice.request.pem
    quicbus cert request --node DIR             writes DIR/node-request.pem
    """
    if (client is None) == (node is None):
        raise click.UsageError("give one of --client FILE and --node DIR", click.get_current_context())
    from quicbus.identity.by_hand import request_credential, request_node  # cryptography takes a while to load

    if node is not None:
        path, role, signed, back = request_node(Path(node)), "node", "node.pem", f"--node {node}"
    else:
        assert client is not None
        path, role, signed = request_credential(Path(client)), "client", f"{Path(client).stem}.signed.pem"
        back = f"--client {client}"
    if as_json:
        click.echo(json.dumps({"path": str(path), "role": role}))
        return
    click.echo(f"{path}: have it signed where the authority is, then install what comes back")
    click.echo(f"there: quicbus cert sign {path.name} --{role} NAME --out {signed}")
    click.echo(f"here:  quicbus cert install {signed} {back}")


@click.command(short_help="Sign a request, with the authority's key.")
@click.argument("path", metavar="REQUEST")
@click.option("--client", metavar="NAME", help="Sign it for a client of this name.")
@click.option("--node", metavar="NAME", help="Sign it for a node of this name.")
@click.option("--out", metavar="FILE", required=True, help="Where the certificate goes; it is no secret.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Days until it expires; 30 unless given.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print what was written as a JSON object.")
@common_options
def sign(
    path: str, client: str | None, node: str | None, out: str, days: float | None, data_dir: str | None, as_json: bool
) -> None:
    """Sign what `quicbus cert request` wrote. Nothing but the key is taken from the request: you give role and name.

    \b
    quicbus cert sign alice.request.pem --client alice --out alice.signed.pem
    """
    name = client if node is None else node
    if name is None or (client is not None and node is not None):
        raise click.UsageError("give one of --client NAME and --node NAME", click.get_current_context())
    from quicbus.identity import Role  # cryptography takes a while to load
    from quicbus.identity.authority import CERTIFICATE_DAYS
    from quicbus.identity.by_hand import sign_request
    from quicbus.identity.files import write_file

    target = Path(out)
    if target.exists() and b"PRIVATE KEY" in _read(out):
        raise CredentialError(f"{out} holds a private key, which would be lost; name another file with --out")
    folder = folder_of(data_dir)
    issuer = authority_of(folder)
    role = Role.CLIENT if node is None else Role.NODE
    signed = sign_request(folder, issuer, _read(path), path, role, name, days=days or CERTIFICATE_DAYS)
    write_file(target, signed.to_pem(), private=False)
    until = signed.chain[0].not_valid_after_utc
    if as_json:
        click.echo(
            json.dumps({"path": out, "role": role, "name": name, "mesh": issuer.mesh, "not_after": until.isoformat()})
        )
        return
    place = "--client FILE" if node is None else "--node DIR"
    click.echo(f"{out}: {role} {name}, valid until {until:%Y-%m-%d}")
    click.echo(f"where the request was made: quicbus cert install {target.name} {place}")


@click.command(short_help="Install what `cert sign` wrote, where the request was made.")
@click.argument("path", metavar="FILE")
@click.option("--client", metavar="FILE", help="The credential file that the request was made for.")
@click.option("--node", metavar="DIR", help="The data folder of the node; a broker that runs picks it up.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as a JSON object.")
@common_options
def install(path: str, client: str | None, node: str | None, as_json: bool) -> None:
    """Join a signed certificate with the private key that waits for it.

    \b
    quicbus cert install alice.signed.pem --client alice.pem
    quicbus cert install node.pem --node DIR
    """
    if (client is None) == (node is None):
        raise click.UsageError("give one of --client FILE and --node DIR", click.get_current_context())
    from quicbus.identity.by_hand import install_credential, install_node  # cryptography takes a while to load
    from quicbus.identity.signed_file import read_signed

    signed = read_signed(_read(path), path)
    now = dt.datetime.now(dt.UTC)
    if node is not None:
        target, credential = Path(node), install_node(Path(node), signed, now)
    else:
        assert client is not None
        target, credential = Path(client), install_credential(Path(client), signed, now)
    if as_json:
        click.echo(json.dumps({"path": str(target), **credential_facts(credential)}))
        return
    click.echo(f"{target}: {credential.role} {credential.name}, valid until {credential.not_after:%Y-%m-%d}")


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_FILE_SIZE)
    except OSError as error:
        raise CredentialError(f"{path}: can't be read: {error.strerror or error}") from None
