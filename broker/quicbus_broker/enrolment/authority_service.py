"""The way to the authority: answered here where this node has its key, otherwise by a node of the mesh that has it.

Nodes with the key subscribe to `$quicbus/authority`; the others ask there. What is asked is signed by a token or by the
key of a certificate, and what is issued is for that key only, so the nodes between need not be trusted with either.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.exceptions import NoResponders, ProtocolViolation, QuicbusError
from quicbus.identity import ProofRefused
from quicbus.identity.issuing import Issued, IssueRequest
from quicbus.logs import logger_for
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.join_frames import (
    AUTHORITY_GROUP,
    AUTHORITY_TOPIC,
    AuthorityAnswer,
    decode_answer,
    encode_answer,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    from quicbus.client import Client
    from quicbus.client.message import Message
    from quicbus.identity.issuing import Issuer

__all__ = ["AuthorityService"]

CONCURRENCY = 2
"""Requests that are answered at a time: each is a few signatures and small files, in a thread."""
MAX_WAITING = 256
"""Requests of other nodes that wait for their turn; whoever asked the oldest has given up by then."""
_NOBODY = (
    "no node with the authority's key can be reached now; start the broker that has it (the first one of the mesh, see "
    "`quicbus peers`) and try again"
)
_TROUBLE = "the node with the authority's key could not answer, its log says why; try again when that is mended"


class AuthorityService:
    """`bus` gives the broker's own client; `issuer` what it can issue with, `None` without the authority's key."""

    def __init__(
        self,
        bus: Callable[[], Client],
        issuer: Callable[[], Issuer | None],
        wall_clock: Callable[[], dt.datetime],
        *,
        node: bytes,
    ) -> None:
        self._bus = bus
        self._issuer = issuer
        self._wall_clock = wall_clock
        self._serves = False
        self._log = logger_for("quicbus_broker.enrolment", node=node.hex())

    async def serve(self) -> None:
        """Answer other nodes where this one has the key; raises `QuicbusError`. May be called again, when it has it."""
        if self._serves or self._issuer() is None:
            return
        bus = self._bus()
        bus.on(AUTHORITY_TOPIC, group=AUTHORITY_GROUP, concurrency=CONCURRENCY, max_pending=MAX_WAITING)(
            self._on_request
        )
        self._serves = True
        await bus.wait_handlers()

    async def ask(self, request: IssueRequest) -> Issued:
        """Return what was issued; raises `ProofRefused`, with NOT_AVAILABLE where no authority can be reached."""
        issuer = self._issuer()
        if issuer is not None:
            return await self._issue(issuer, request)
        try:
            reply = await self._bus().request(AUTHORITY_TOPIC, request.encode(), timeout=limits.JOIN_ANSWER_TIMEOUT_S)
            return _issued(decode_answer(reply.payload))
        except NoResponders:
            raise ProofRefused(CloseCode.NOT_AVAILABLE, _NOBODY) from None
        except (QuicbusError, TimeoutError) as error:
            self._log.warning("= the node with the authority's key did not answer: %s", error)
            raise ProofRefused(CloseCode.NOT_AVAILABLE, _NOBODY) from None

    async def _issue(self, issuer: Issuer, request: IssueRequest) -> Issued:
        try:
            return await asyncio.to_thread(issuer.answer, request, self._wall_clock())
        except QuicbusError as error:
            self._log.error("= a certificate could not be issued: %s", error)
            raise ProofRefused(CloseCode.NOT_AVAILABLE, _TROUBLE) from None

    async def _on_request(self, message: Message) -> None:
        issuer = self._issuer()
        try:
            if issuer is None:
                raise ProofRefused(CloseCode.NOT_AVAILABLE, _NOBODY)
            issued = await self._issue(issuer, IssueRequest.decode(message.payload))
            answer = AuthorityAnswer(issued=issued.encode())
        except ProtocolViolation as error:
            answer = AuthorityAnswer(code=CloseCode.PROTOCOL_VIOLATION, why=error.detail)
        except ProofRefused as error:
            answer = AuthorityAnswer(code=error.code, why=error.why)
        if answer.code:
            self._log.info("< %s asked for a certificate: refused, %s", message.publisher, answer.why)
        await message.reply(encode_answer(answer))


def _issued(answer: AuthorityAnswer) -> Issued:
    if answer.issued or not answer.code:
        return Issued.decode(answer.issued)
    try:
        code = CloseCode(answer.code)
    except ValueError:  # a later version knows more
        code = CloseCode.CREDENTIAL_INVALID if answer.code >= CloseCode.CREDENTIAL_MISSING else CloseCode.INTERNAL_ERROR
    raise ProofRefused(code, answer.why)
