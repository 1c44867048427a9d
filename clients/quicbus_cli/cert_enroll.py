"""`quicbus cert enroll`: a join token becomes the credential of a client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quicbus.commands import common_options, settings_of
from quicbus.exceptions import CredentialError, CredentialRefused
from quicbus.settings import ClientSettings
from quicbus_cli.cert_folder import credential_facts

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.identity import Credential, JoinToken

__all__ = ["enroll"]


@click.command(short_help="Get a client's credential with a join token.")
@click.argument("token")
@click.option("--out", metavar="FILE", help="Credential file; NAME.pem unless given.")
@click.option("--force", is_flag=True, help="Replace a credential file that is there.")
@click.option("--engine", metavar="NAME", help="QUIC implementation: auto, aioquic or qh3.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as a JSON object.")
@common_options
def enroll(token: str, out: str | None, force: bool, engine: str | None, as_json: bool) -> None:
    """Redeem TOKEN (the text, or a file that holds it) at a broker that it names, and write the credential.

    The key is made here and stays here. Where the answer is lost on its way, the same command works again.

    \b
    quicbus cert enroll qbt1-... --out alice.pem
    """
    settings = settings_of(ClientSettings, {"engine": engine})
    from quicbus.client.enrolment import read_token  # cryptography takes a while to load
    from quicbus.identity import Role

    given = read_token(token)
    if given.role is not Role.CLIENT:
        raise CredentialError(
            f"this token is for a {given.role}: use it with `quicbus broker --join TOKEN`, or make another one with "
            "`quicbus token create --role client`"
        )
    path = Path(out or f"{given.name or 'credential'}.pem")
    if path.exists() and not force:
        raise CredentialError(f"{path} exists; --force replaces it")
    try:
        credential, brokers = asyncio.run(_enroll(given, path, settings))
    except KeyboardInterrupt:
        click.echo("quicbus: interrupted; the same command goes on, also where the token is used up by now", err=True)
        raise
    if as_json:
        click.echo(json.dumps({"path": str(path), **credential_facts(credential), "brokers": brokers}))
        return
    click.echo(f"{path}: {credential.role} {credential.name}, valid until {credential.not_after:%Y-%m-%d}")
    click.echo(f"use it: quicbus sub 'sensors/#' --url {brokers[0]} --credentials {path}")


async def _enroll(token: JoinToken, path: Path, settings: ClientSettings) -> tuple[Credential, list[str]]:
    from quicbus.client.enrolment import CertificateOffice, joined_credential
    from quicbus.identity import make_request
    from quicbus.transport.engines import engine_named

    waiting = path.with_name(f"{path.stem}.{token.id.hex()}.key.pem")
    key = _key_in(waiting)
    office = CertificateOffice(engine_named(settings.engine), qlog_dir=settings.qlog_dir)
    try:
        answer = await office.join(token, make_request(key))
    except CredentialRefused:
        waiting.unlink(missing_ok=True)
        raise
    credential = joined_credential(token, key, answer.issued)
    credential.save(path)
    waiting.unlink(missing_ok=True)
    return credential, list(answer.brokers)


def _key_in(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key of an attempt whose answer was lost, or a new one, which is in the file now."""
    from quicbus.identity.files import advice, write_file
    from quicbus.identity.keys import generate_key, key_from_pem, key_to_pem

    try:
        if path.exists():
            return key_from_pem(path.read_bytes(), str(path))
        key = generate_key()
        write_file(path, key_to_pem(key), private=True)
    except OSError as error:
        why = f"{error.strerror or error}{advice(error)}"
        raise CredentialError(f"{path.parent}: the credential can't be written there: {why}") from error
    return key
