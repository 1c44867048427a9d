"""How a node without the authority's key asks one that has it, and what becomes of the answers."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, cast

import pytest

from quicbus.exceptions import DataFolderError, RequestTimeout
from quicbus.identity import Issued, Issuer, IssueRequest, ProofRefused, make_request
from quicbus.identity.keys import generate_key
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.join_frames import AuthorityAnswer, decode_answer, encode_answer
from quicbus_broker.enrolment.authority_service import AuthorityService
from tests.broker.enrolment.offices import FakeBus, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.client import Client

REQUEST = IssueRequest(csr=make_request(generate_key()), token_id=bytes(8), signature=bytes(64))
ISSUED = Issued(chain=(b"chain",), authorities=(b"authority",))


class FakeIssuer:
    def __init__(self, answer: Callable[[], Issued]) -> None:
        self._answer = answer

    def answer(self, request: IssueRequest, now: dt.datetime) -> Issued:
        assert request == REQUEST
        return self._answer()


def raising(error: Exception) -> Callable[[], Issued]:
    def answer() -> Issued:
        raise error

    return answer


def service(bus: FakeBus, answer: Callable[[], Issued] | None = None) -> AuthorityService:
    issuer = FakeIssuer(answer) if answer is not None else None
    return AuthorityService(
        lambda: cast("Client", bus),
        lambda: cast("Issuer | None", issuer),
        lambda: dt.datetime.now(dt.UTC),
        node=bytes(16),
    )


async def joined(answer: Callable[[], Issued]) -> FakeBus:
    """Return the bus of a node whose mesh has one with the key, which answers so."""
    with_key, without = FakeBus(), FakeBus()
    await service(with_key, answer).serve()
    ((topic, handler),) = with_key.handlers.items()
    assert topic == ("$quicbus/authority", "authority")
    without.authority = handler
    return without


async def test_a_node_with_the_key_asks_nobody() -> None:
    bus = FakeBus()
    assert await service(bus, lambda: ISSUED).ask(REQUEST) == ISSUED
    assert bus.asked == 0


async def test_a_node_without_the_key_does_not_serve() -> None:
    bus = FakeBus()
    await service(bus).serve()
    assert not bus.handlers


async def test_serving_twice_subscribes_once() -> None:
    bus = FakeBus()
    served = service(bus, lambda: ISSUED)
    await served.serve()
    bus.handlers.clear()
    await served.serve()
    assert not bus.handlers


async def test_what_another_node_issued_is_passed_on() -> None:
    assert await service(await joined(lambda: ISSUED)).ask(REQUEST) == ISSUED


async def test_a_refusal_of_another_node_is_passed_on_with_its_code_and_sentence() -> None:
    bus = await joined(raising(ProofRefused(CloseCode.TOKEN_REFUSED, "it is used up")))
    with pytest.raises(ProofRefused, match="it is used up") as refused:
        await service(bus).ask(REQUEST)
    assert refused.value.code == CloseCode.TOKEN_REFUSED


async def test_trouble_with_the_files_of_the_authority_is_told_as_not_available() -> None:
    error = DataFolderError("/secret/place", "tokens.json is damaged")
    for bus, answer in ((await joined(raising(error)), None), (FakeBus(), raising(error))):
        with pytest.raises(ProofRefused, match="its log says why") as refused:
            await service(bus, answer).ask(REQUEST)
        assert refused.value.code == CloseCode.NOT_AVAILABLE
        assert "secret" not in refused.value.why


@pytest.mark.parametrize("failure", [None, RequestTimeout("$quicbus/authority", 10.0)], ids=["nobody", "silence"])
async def test_where_nobody_answers_it_is_not_available_now(failure: Exception | None) -> None:
    bus = FakeBus()
    bus.failure = failure
    with pytest.raises(ProofRefused, match="try again") as refused:
        await service(bus).ask(REQUEST)
    assert refused.value.code == CloseCode.NOT_AVAILABLE


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"\xc1", CloseCode.NOT_AVAILABLE),
        (encode_answer(AuthorityAnswer(issued=b"\xc1")), CloseCode.NOT_AVAILABLE),
        (encode_answer(AuthorityAnswer(code=0x77, why="later")), CloseCode.INTERNAL_ERROR),
        (encode_answer(AuthorityAnswer(code=0x1FF, why="later")), CloseCode.CREDENTIAL_INVALID),
        (encode_answer(AuthorityAnswer()), CloseCode.NOT_AVAILABLE),
    ],
    ids=["garbage", "garbage inside", "a later code", "a later code about credentials", "nothing"],
)
async def test_an_answer_that_makes_no_sense_is_a_refusal_of_a_known_kind(reply: bytes, code: CloseCode) -> None:
    async def answer(request: Request) -> None:
        await request.reply(reply)

    bus = FakeBus()
    bus.authority = answer
    with pytest.raises(ProofRefused) as refused:
        await service(bus).ask(REQUEST)
    assert refused.value.code == code


async def test_a_request_that_cannot_be_read_is_answered() -> None:
    bus = FakeBus()
    await service(bus, lambda: ISSUED).serve()
    (handler,) = bus.handlers.values()
    request = Request(b"\xc1")
    await cast("Any", handler)(request)
    assert decode_answer(request.replies[0]).code == CloseCode.PROTOCOL_VIOLATION
