"""Joining, renewing and what the mesh trusts: tokens, requests, answers, trust lists."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import msgspec

from quicbus.exceptions import CredentialError, ProtocolViolation
from quicbus.identity import ProofRefused
from quicbus.identity.issuing import Issued, IssueRequest
from quicbus.identity.names import Role
from quicbus.identity.requests import make_request, request_from_pem, request_key, request_to_pem
from quicbus.identity.signatures import SignatureContext
from quicbus.identity.signed_file import read_signed, trust_to_pem
from quicbus.identity.tokens import JoinToken, is_signed_by_token
from quicbus.identity.trust import Revocation, TrustList, TrustStore, seal_trust
from quicbus.wire.frames import STREAM_TYPE_CONTROL, FrameParser, encode_frame
from quicbus.wire.join_frames import (
    JOIN_FRAME_TYPES,
    AuthorityAnswer,
    Joined,
    JoinRequest,
    decode_answer,
    encode_answer,
)
from quicbus_broker.enrolment.session import JoinSession
from tests.broker.fakes import FakeConnection
from tests.fuzz import samples
from tests.fuzz.target import Target, chunks, join, parts
from tests.fuzz.targets.identity import verifier

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TARGETS"]

PREFIX = "qbt1-"
MAX_FRAME_SIZE = 4096


# --- tokens -----------------------------------------------------------------------------------------------------------


def join_tokens(data: bytes) -> None:
    """The text of a token, as somebody typed it."""
    _check_token(data.decode(errors="replace"))


def token_contents(data: bytes) -> None:
    """What stands in a token, with the checksum that belongs to it."""
    content = data + hashlib.sha256(data).digest()[:4]
    _check_token(PREFIX + base64.urlsafe_b64encode(content).decode().rstrip("="))


def _check_token(text: str) -> None:
    token = JoinToken.parse(text, samples.NOW)
    assert JoinToken.parse(token.text, samples.NOW) == token
    assert is_signed_by_token(token.public_key, token.sign(b"csr"), token.mesh, token.id, b"csr")


@cache
def _token() -> JoinToken:
    der = _authorities()
    expires = samples.NOW + dt.timedelta(days=1)
    return JoinToken(
        samples.authority().mesh, ("oslo.example:4433",), der, b"12345678", bytes(32), Role.NODE, "lima", expires
    )


def _authorities() -> tuple[bytes, ...]:
    return TrustStore(samples.authority().mesh, samples.authority().certificate_pem).authorities_der


def _token_seeds() -> Iterable[bytes]:
    yield _token().text.encode()
    yield _token().text[:-9].encode()


def _content_seeds() -> Iterable[bytes]:
    yield base64.urlsafe_b64decode(_token().text.removeprefix(PREFIX) + "==")[:-4]


# --- requests and answers ---------------------------------------------------------------------------------------------


def signing_requests(data: bytes) -> None:
    try:
        request_from_pem(data, "a file")
    except CredentialError:
        pass
    key = request_key(data)
    assert request_key(request_from_pem(request_to_pem(data), "a file")) == key


def issue_requests(data: bytes) -> None:
    request = IssueRequest.decode(data)
    assert IssueRequest.decode(request.encode()) == request
    if request.chain:
        verifier().verify_renewal(request.chain, samples.NOW)
    request_key(request.csr)


def issued(data: bytes) -> None:
    """What a joiner gets, also as a file that was brought by hand."""
    try:
        read_signed(data, "a file")
    except CredentialError:
        pass
    answer = Issued.decode(data)
    assert Issued.decode(answer.encode()) == answer
    _trust_store().take(answer.trust, samples.NOW)


def trust_lists(data: bytes) -> None:
    """A list as it comes, and one that the authority has signed whatever is in it."""
    store = _trust_store()
    signature = samples.authority().sign(SignatureContext.TRUST, data)
    signed = _encode([data, [[samples.authority().key_id, signature]]])
    for raw in (data, signed):
        try:
            is_newer = store.take(raw, samples.NOW)
        except CredentialError:
            continue
        assert is_newer == (store.raw == raw)
        assert TrustStore(store.mesh, store.authorities_pem, store.raw or None).version == store.version


_encode = msgspec.msgpack.Encoder().encode


def _trust_store() -> TrustStore:
    return TrustStore(samples.authority().mesh, samples.authority().certificate_pem)


def _trust_list() -> TrustList:
    return TrustList(
        mesh=samples.authority().mesh,
        version=7,
        made_at=1_700_000_000,
        authorities=_authorities(),
        revoked=(Revocation(samples.OTHER, "node", "lima", 1_700_000_000, 1_800_000_000),),
    )


def _request_seeds() -> Iterable[bytes]:
    csr = make_request(samples.node().private_key)
    yield csr
    yield request_to_pem(csr)


def _issue_seeds() -> Iterable[bytes]:
    csr = make_request(samples.node().private_key)
    yield IssueRequest(csr=csr, token_id=b"12345678", signature=_token().sign(csr)).encode()
    yield IssueRequest(csr=csr, chain=tuple(samples.node().chain_der)).encode()


def _issued_seeds() -> Iterable[bytes]:
    raw = seal_trust(_trust_list(), [samples.authority()])
    yield Issued(chain=tuple(samples.node().chain_der), authorities=_authorities(), trust=raw).encode()
    yield samples.node().chain_pem + trust_to_pem(b"\x92\xc4\x00\x90")


def _trust_seeds() -> Iterable[bytes]:
    yield seal_trust(_trust_list(), [samples.authority()])
    yield _encode(_trust_list())


# --- frames and the session -------------------------------------------------------------------------------------------


def join_frames(data: bytes) -> None:
    try:
        answer = decode_answer(data)
        assert decode_answer(encode_answer(answer)) == answer
    except ProtocolViolation:
        pass
    parser = FrameParser(MAX_FRAME_SIZE, JOIN_FRAME_TYPES)
    for chunk in chunks(data):
        for frame in parser.feed(chunk):
            assert FrameParser(MAX_FRAME_SIZE, JOIN_FRAME_TYPES).feed(encode_frame(frame)) == [frame]


class _Desk:
    """Takes every request and answers the first."""

    def refusal(self, session: JoinSession) -> str | None:
        return None

    def requested(self, session: JoinSession, request: bytes) -> None:
        session.answer(request, ())

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def join_session(data: bytes) -> None:
    """The bytes of one who joins, before or after the handshake."""
    connection = FakeConnection()
    connection.streams_allowed = len(data) % 2  # a joiner may allow none
    is_connected = False
    session = JoinSession(connection, cast("Any", _Desk()))
    for piece in parts(data):
        if not piece:
            if not is_connected:
                is_connected = True
                session.connected(bytes(32))
        elif not session.is_closed:
            session.stream_data(2 + 4 * (piece[0] & 1), piece[1:], piece[0] >= 0xF0)
            session.before_transmit()
    assert connection.close_code is None or connection.close_reason


def _frame_seeds() -> Iterable[bytes]:
    for frame in (JoinRequest(version=1, agent="x", request=b"r"), Joined(issued=b"i", brokers=("quic://h:1",))):
        yield b"\xff" + encode_frame(frame)
    yield encode_answer(AuthorityAnswer(issued=b"i", code=3, why="no"))


def _session_seeds() -> Iterable[bytes]:
    asked = bytes([0, STREAM_TYPE_CONTROL]) + encode_frame(JoinRequest(version=1, request=b"r"))
    yield join(b"", asked)
    yield join(asked, b"", b"\xf0")
    yield join(b"", asked, b"\x01more")


TARGETS = (
    Target("join_tokens", join_tokens, _token_seeds, (CredentialError,)),
    Target("token_contents", token_contents, _content_seeds, (CredentialError,)),
    Target("signing_requests", signing_requests, _request_seeds, (CredentialError,)),
    Target("issue_requests", issue_requests, _issue_seeds, (ProtocolViolation, ProofRefused, CredentialError)),
    Target("issued", issued, _issued_seeds, (ProtocolViolation, CredentialError), max_size=4096),
    Target("trust_lists", trust_lists, _trust_seeds),
    Target("join_frames", join_frames, _frame_seeds, (ProtocolViolation,)),
    Target("join_session", join_session, _session_seeds),
)
