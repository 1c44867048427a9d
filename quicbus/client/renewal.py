"""A client's credential: where it is read from, renewed before it ends, and written back to.

It is renewed in the last third of its life at one of the brokers that the client knows, in a task beside the session,
which goes on: the broker asks for the proof again before the old certificate ends. One that has expired not long ago is
renewed before it is dialed with.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from quicbus.client.events import CredentialExpiring, CredentialRenewed
from quicbus.client.renewal_schedule import RenewalSchedule
from quicbus.client.urls import BrokerUrl
from quicbus.exceptions import ConnectionFailed, CredentialError, QuicbusError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus.client.enrolment import CertificateOffice
    from quicbus.client.events import Event
    from quicbus.identity import Credential
    from quicbus.identity.files import FileStamp
    from quicbus.transport.connection import Address

__all__ = ["CredentialRenewal", "CredentialSource", "load_credential"]

_log = logging.getLogger("quicbus.client")

SHORTEST_SLEEP_S = 0.5
LONGEST_SLEEP_S = 600.0
"""The clock may be set, the machine may have slept, and the file may have been replaced meanwhile."""


class CredentialSource:
    """What was given to `connect`: a file, read again whenever it is wanted, or a credential."""

    def __init__(self, given: str | os.PathLike[str] | Credential | None) -> None:
        self._given = given
        self._renewed: Credential | None = None
        """What could not be written down."""
        self._seen: tuple[FileStamp, Credential] | None = None

    @property
    def path(self) -> Path | None:
        from quicbus.identity import Credential

        return None if isinstance(self._given, Credential) else _path_of(self._given)

    def load(self, *, allow_expired: bool = False) -> Credential:
        """Read it; raises `CredentialError` with the remedy."""
        renewed = self._renewed
        try:
            credential = self._read(allow_expired=allow_expired or renewed is not None)
        except CredentialError:
            if renewed is None:
                raise
            return renewed
        is_later = renewed is not None and renewed.not_after > credential.not_after
        if renewed is not None and is_later and renewed.node_id == credential.node_id:
            return renewed
        self._renewed = None
        return credential

    def _read(self, *, allow_expired: bool) -> Credential:
        """Look at the file, and read it where it was replaced: a connection alone wants it five times."""
        from quicbus.identity import Role
        from quicbus.identity.files import file_stamp

        path = self.path
        stamp = None if path is None else file_stamp(path)
        if self._seen is not None and stamp == self._seen[0]:
            credential = self._seen[1]
            credential.check(f"credential {path}", role=Role.CLIENT, allow_expired=allow_expired)
            return credential
        credential = load_credential(self._given, allow_expired=allow_expired)
        self._seen = None if stamp is None else (stamp, credential)
        return credential

    def keep(self, old: Credential, renewed: Credential) -> None:
        """Use `renewed` in place of `old` from now on, and write it down.

        Raises `CredentialError` where that is impossible; it is used all the same. A file that is not `old` any more is
        left alone.
        """
        path = self.path
        if path is None:
            self._renewed = renewed
            return
        if load_credential(self._given, allow_expired=True).chain_pem != old.chain_pem:
            return
        try:
            renewed.save(path.resolve())  # where the name is a link, what it stands for is replaced
        except CredentialError as error:
            self._renewed = renewed
            raise CredentialError(
                f"{error.why}; it was renewed for this process only: make the file and its folder writable for it"
            ) from error


class CredentialRenewal:
    """Keeps one client's credential alive. `run` it as a task; `report` may be set until then."""

    def __init__(
        self,
        source: CredentialSource,
        office: Callable[[], CertificateOffice],
        *,
        rng: random.Random | None = None,
        wall_clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.report: Callable[[Event], None] = lambda event: None
        self._source = source
        self._office = office
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._wall_clock = wall_clock
        self._credential: Credential | None = None
        self._schedule: RenewalSchedule | None = None
        self._why = ""
        self._lock = asyncio.Lock()

    @property
    def expires_in_s(self) -> float | None:
        """Seconds until the certificate ends, negative afterwards; `None` before it was looked at."""
        if self._credential is None:
            return None
        return (self._credential.not_after - self._wall_clock()).total_seconds()

    def look(self) -> Credential:
        """Read the credential as it is now, expired or not; raises `CredentialError` where there is none."""
        credential = self._source.load(allow_expired=True)
        if self._credential is None or credential.chain_pem != self._credential.chain_pem:
            self._schedule = RenewalSchedule(
                credential.not_before, credential.renew_at, credential.not_after, self._rng
            )
            self._why = ""
        self._credential = credential
        return credential

    async def run(self, urls: Callable[[], Sequence[BrokerUrl]]) -> None:
        """Renew in time, again and again, until cancelled; what fails is reported and tried again."""
        while True:
            wait_s = await self.keep(urls)
            await asyncio.sleep(min(max(wait_s, SHORTEST_SLEEP_S), LONGEST_SLEEP_S))

    async def keep(self, urls: Callable[[], Sequence[BrokerUrl]]) -> float:
        """Do what is due now; return the seconds until something is again."""
        try:
            credential = self.look()
        except CredentialError as error:
            _log.warning("= the credential can't be read: %s", error)
            return LONGEST_SLEEP_S
        schedule, now = self._schedule, self._wall_clock()
        assert schedule is not None  # look() made one
        if schedule.is_due(now):
            try:
                await self._renew(credential, urls())
                return SHORTEST_SLEEP_S
            except QuicbusError as error:
                self._why = str(error)
                pause_s = schedule.failed(now).total_seconds()
                _log.info("= the credential could not be renewed, tried again in %.0f s: %s", pause_s, error)
        if schedule.warning(now):
            left_s = (schedule.not_after - now).total_seconds()
            why = self._why or "no attempt yet"
            _log.warning("= the credential ends in %.1f days and was not renewed: %s", left_s / 86_400, why)
            self.report(CredentialExpiring(left_s, self._why))
        return schedule.wait_s(self._wall_clock())

    async def revive(self, address: Address) -> None:
        """Renew a credential that has expired at the broker there; nothing happens to one that has not.

        Raises `ConnectionFailed` where that may work elsewhere or later, `CredentialError` where it can't.
        """
        async with self._lock:
            credential = self.look()
            if self._wall_clock() <= credential.not_after:
                return
            try:
                await self._renew_now(credential, [BrokerUrl(*address)])
            except ConnectionFailed as error:
                raise ConnectionFailed(
                    f"the credential expired on {credential.not_after:%Y-%m-%d %H:%M} UTC and could not be renewed "
                    f"there: {error}"
                ) from error

    async def _renew(self, credential: Credential, urls: Sequence[BrokerUrl]) -> None:
        async with self._lock:
            if self.look().chain_pem == credential.chain_pem:  # nobody else was faster
                await self._renew_now(credential, urls)

    async def _renew_now(self, credential: Credential, urls: Sequence[BrokerUrl]) -> None:
        renewed = await self._office().renew(credential, urls)
        kept, why = self._source.path, ""
        try:
            await asyncio.to_thread(self._source.keep, credential, renewed)
        except CredentialError as error:
            kept, why = None, error.why
            _log.warning("= %s", why)
        self.look()
        left_s = (renewed.not_after - self._wall_clock()).total_seconds()
        self.report(CredentialRenewed(left_s, None if kept is None else str(kept), why))


def load_credential(given: str | os.PathLike[str] | Credential | None, *, allow_expired: bool = False) -> Credential:
    """Return the credential to use: the one given, `QUICBUS_CREDENTIALS`, or the local user's.

    Raises `CredentialError` with the remedy.
    """
    from quicbus.identity import Credential, Role

    if isinstance(given, Credential):
        return given
    path = _path_of(given)
    if not path.exists() and not (given or os.environ.get("QUICBUS_CREDENTIALS")):
        raise CredentialError(
            f"no credential: {path} does not exist. `quicbus broker` on this machine makes it; for a broker elsewhere "
            "get one with `quicbus cert enroll TOKEN`, or have one written there with `quicbus cert issue --client "
            "NAME --out FILE`, and name it with credentials=, --credentials or QUICBUS_CREDENTIALS"
        )
    return Credential.load(path, role=Role.CLIENT, allow_expired=allow_expired)


def _path_of(given: str | os.PathLike[str] | None) -> Path:
    from quicbus.settings import default_data_dir

    path = given or os.environ.get("QUICBUS_CREDENTIALS")
    return Path(path).expanduser() if path else default_data_dir() / "credential.pem"
