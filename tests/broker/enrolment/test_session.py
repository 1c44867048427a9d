"""A joiner's session at the desk, without a network."""

from __future__ import annotations

from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import STREAM_TYPE_CONTROL, encode_frame
from quicbus.wire.join_frames import JoinRequest
from quicbus_broker.enrolment.session import JoinSession
from tests.broker.fakes import FakeConnection


class Desk:
    """Answers at once."""

    def __init__(self) -> None:
        self.refusals: list[CloseCode] = []

    def refusal(self, session: JoinSession) -> str | None:
        return None

    def requested(self, session: JoinSession, request: bytes) -> None:
        session.answer(b"issued", ())

    def refused(self, session: JoinSession, code: CloseCode, reason: str) -> None:
        self.refusals.append(code)

    def closed(self, session: JoinSession) -> None: ...


def test_a_joiner_that_allows_no_stream_for_the_answer_is_refused() -> None:
    connection, desk = FakeConnection(), Desk()
    connection.streams_allowed = 0
    session = JoinSession(connection, desk)
    session.connected(bytes(32))
    asked = bytes((STREAM_TYPE_CONTROL,)) + encode_frame(JoinRequest(version=1, request=b"?"))
    session.stream_data(2, asked, False)
    assert desk.refusals == [CloseCode.LIMIT_EXCEEDED]
    assert "allow this side a stream" in connection.close_reason
    assert not session.is_answered
