"""Keeps the certificates of a broker alive: its own, and that of the local applications in its data folder.

They are renewed in the last third of their life: by the authority's key in the data folder, else over the mesh, and
where the certificate has expired, so that no other node lets this one in, over `quicbus-join/1` at one that it knows.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from quicbus.client.enrolment import renewal_request, renewed_credential
from quicbus.client.renewal_schedule import RenewalSchedule
from quicbus.exceptions import QuicbusError
from quicbus.identity import ProofRefused
from quicbus.logs import logger_for
from quicbus.wire.close_codes import CloseCode
from quicbus_broker.events import CertificateExpiring, CertificateRenewed

if TYPE_CHECKING:
    import datetime as dt
    import random
    from collections.abc import Callable, Sequence

    from quicbus.client.enrolment import CertificateOffice
    from quicbus.client.urls import BrokerUrl
    from quicbus.identity import Credential, Issued
    from quicbus_broker.enrolment.authority_service import AuthorityService
    from quicbus_broker.events import BrokerEvent
    from quicbus_broker.node import NodeIdentity

__all__ = ["CertificateKeeper"]

LONGEST_SLEEP_S = 600.0
"""The clock may be set, the machine may have slept, and the files may have been replaced meanwhile."""
SHORTEST_SLEEP_S = 0.5
QUIET_PAUSE_S = 30.0
"""Attempts that are repeated sooner are not worth a warning: the mesh is not found yet, the authority restarts."""

_CUT_OFF = {
    "node": "no client and no other node can connect until it is renewed, which is tried again and again",
    "local": "local applications can't connect until it is renewed, which is tried again and again",
}


class _Charge:
    """One certificate that is kept alive."""

    def __init__(self, whose: str) -> None:
        self.whose = whose
        self.credential: Credential | None = None
        self.schedule: RenewalSchedule | None = None
        self.why = ""

    def look(self, credential: Credential | None, rng: random.Random) -> None:
        """Go by the certificate that there is now: others may have renewed it."""
        if credential is None:
            self.credential = self.schedule = None
        elif self.credential is None or credential.chain_pem != self.credential.chain_pem:
            self.schedule = RenewalSchedule(credential.not_before, credential.renew_at, credential.not_after, rng)
            self.why = ""
        self.credential = credential


class CertificateKeeper:
    """`changed` is called when the node's certificate was renewed, `report` with what operators want to know."""

    def __init__(
        self,
        identity: NodeIdentity,
        authority: AuthorityService,
        office: CertificateOffice,
        known: Callable[[], Sequence[BrokerUrl]],
        *,
        changed: Callable[[], object],
        report: Callable[[BrokerEvent], None],
        wall_clock: Callable[[], dt.datetime],
        rng: random.Random,
    ) -> None:
        self._identity = identity
        self._authority = authority
        self._office = office
        self._known = known
        self._changed = changed
        self._report = report
        self._wall_clock = wall_clock
        self._rng = rng
        self._node, self._local = _Charge("node"), _Charge("local")
        self._log = logger_for("quicbus_broker.enrolment", node=identity.credential.node_id.hex())

    async def run(self) -> None:
        """Renew what is due, again and again, until cancelled."""
        while True:
            wait_s = await self.look()
            await asyncio.sleep(min(max(wait_s, SHORTEST_SLEEP_S), LONGEST_SLEEP_S))

    async def look(self) -> float:
        """Do what is due now; return the seconds until something is again."""
        try:
            await self._authority.serve()
        except QuicbusError as error:
            self._log.warning("= other nodes can't ask for certificates here, tried again: %s", error)
        waits = [LONGEST_SLEEP_S]
        for charge in (self._node, self._local):
            try:
                charge.look(await self._credential_of(charge), self._rng)
            except QuicbusError as error:
                self._log.warning("= the credential of local applications can't be read: %s", error)
                continue
            if charge.schedule is not None:
                await self._keep(charge, charge.schedule)
                waits.append(charge.schedule.wait_s(self._wall_clock()))
        return min(waits)

    async def _credential_of(self, charge: _Charge) -> Credential | None:
        if charge is self._node:
            return self._identity.credential
        return await asyncio.to_thread(self._identity.local)

    async def _keep(self, charge: _Charge, schedule: RenewalSchedule) -> None:
        now = self._wall_clock()
        if schedule.is_due(now):
            try:
                await self._renew(charge)
            except (QuicbusError, ProofRefused) as error:
                charge.why = str(error)
                pause_s = schedule.failed(now).total_seconds()
                self._log.log(
                    logging.WARNING if pause_s >= QUIET_PAUSE_S else logging.INFO,
                    "= the %s certificate could not be renewed, tried again in %.0f s: %s",
                    charge.whose,
                    pause_s,
                    error,
                )
            else:
                credential = await self._credential_of(charge)
                charge.look(credential, self._rng)
                self._tell_renewed(charge, now, had_ended=now > schedule.not_after)
                return
            now = self._wall_clock()  # the attempt took its time
        if schedule.warning(now):
            left_s = (schedule.not_after - now).total_seconds()
            self._warn(charge, left_s)
            me = self._identity.credential
            self._report(CertificateExpiring(me.node_id.hex(), me.name, charge.whose, left_s, charge.why))

    def _warn(self, charge: _Charge, left_s: float) -> None:
        why = charge.why or "no attempt yet"
        if left_s > 0:
            days = left_s / 86_400
            self._log.warning("= the %s certificate ends in %.1f days and was not renewed: %s", charge.whose, days, why)
        else:
            self._log.error("= the %s certificate has expired, and %s: %s", charge.whose, _CUT_OFF[charge.whose], why)

    async def _renew(self, charge: _Charge) -> None:
        credential = charge.credential
        assert credential is not None  # it is due
        if self._identity.issuer is not None:
            await asyncio.to_thread(self._identity.renew)
        else:
            issued = await self._ask(credential)
            renewed = renewed_credential(credential, issued, self._wall_clock())
            if charge is self._local:
                await asyncio.to_thread(self._identity.install_local, renewed)
                return
            await asyncio.to_thread(self._identity.install, issued.chain, issued.trust)
        if charge is self._node:
            self._changed()

    async def _ask(self, credential: Credential) -> Issued:
        try:
            return await self._authority.ask(renewal_request(credential))
        except ProofRefused as error:
            if error.code != CloseCode.NOT_AVAILABLE or self._wall_clock() <= credential.not_after:
                raise
            known = self._known()
            if not known:
                raise
            return await self._office.renewal(credential, known)

    def _tell_renewed(self, charge: _Charge, now: dt.datetime, *, had_ended: bool) -> None:
        if charge.credential is None:
            return
        left_s = (charge.credential.not_after - now).total_seconds()
        level = logging.WARNING if had_ended else logging.INFO  # who was told of the end is told of this, too
        self._log.log(level, "= the %s certificate was renewed, until %s", charge.whose, charge.credential.not_after)
        me = self._identity.credential
        self._report(CertificateRenewed(me.node_id.hex(), me.name, charge.whose, left_s))
