"""Retry tokens: taken once, from one address, for a short time; every refusal has its reason."""

from __future__ import annotations

import pytest

from quicbus.transport._retry import LIFETIME_S, RetryTokenRefused, RetryTokens, TokenRefusal, ValidatedToken

ADDRESS = ("192.0.2.7", 4433)
ORIGINAL, RETRY = b"original", b"retry-id"


def refusal(tokens: RetryTokens, token: bytes, now: float = 1.0, **other: object) -> TokenRefusal:
    address = other.get("address", ADDRESS)
    destination = other.get("destination", RETRY)
    assert isinstance(address, tuple)
    assert isinstance(destination, bytes)
    with pytest.raises(RetryTokenRefused) as caught:
        tokens.validate(token, address, destination, now)
    return caught.value.reason


@pytest.mark.parametrize("address", [ADDRESS, ("2001:db8::1", 1), ("127.0.0.1", 65_535)])
def test_a_token_gives_back_both_ids(address: tuple[str, int]) -> None:
    tokens = RetryTokens()
    token = tokens.create(address, ORIGINAL, RETRY, 1.0)
    assert tokens.validate(token, address, RETRY, 1.5) == ValidatedToken(ORIGINAL, RETRY)


def test_a_token_hides_what_it_holds() -> None:
    assert ORIGINAL not in RetryTokens().create(ADDRESS, ORIGINAL, RETRY, 1.0)


def test_a_token_is_taken_once() -> None:
    tokens = RetryTokens()
    token = tokens.create(ADDRESS, ORIGINAL, RETRY, 1.0)
    tokens.validate(token, ADDRESS, RETRY, 1.0)
    assert refusal(tokens, token) is TokenRefusal.REPLAYED
    assert refusal(tokens, token, now=1.0 + LIFETIME_S) is TokenRefusal.REPLAYED
    assert refusal(tokens, token, now=2.0 + LIFETIME_S) is TokenRefusal.EXPIRED


@pytest.mark.parametrize("address", [("192.0.2.8", 4433), ("192.0.2.7", 4434), ("2001:db8::1", 4433)])
def test_a_token_from_another_address_is_refused_and_not_used_up(address: tuple[str, int]) -> None:
    tokens = RetryTokens()
    token = tokens.create(ADDRESS, ORIGINAL, RETRY, 1.0)
    assert refusal(tokens, token, address=address) is TokenRefusal.OTHER_ADDRESS
    tokens.validate(token, ADDRESS, RETRY, 1.0)


def test_a_token_for_another_connection_is_refused() -> None:
    tokens = RetryTokens()
    token = tokens.create(ADDRESS, ORIGINAL, RETRY, 1.0)
    assert refusal(tokens, token, destination=b"another!") is TokenRefusal.OTHER_CONNECTION


def test_an_old_token_is_refused() -> None:
    tokens = RetryTokens()
    token = tokens.create(ADDRESS, ORIGINAL, RETRY, 1.0)
    assert refusal(tokens, token, now=1.1 + LIFETIME_S) is TokenRefusal.EXPIRED


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 27, 28, 29, 57])
def test_a_made_up_or_cut_token_is_refused_as_forged(length: int) -> None:
    tokens = RetryTokens()
    assert refusal(tokens, bytes(length)) is TokenRefusal.FORGED
    assert refusal(tokens, tokens.create(ADDRESS, ORIGINAL, RETRY, 1.0)[:length]) is TokenRefusal.FORGED


def test_a_changed_token_is_refused_as_forged() -> None:
    tokens = RetryTokens()
    token = tokens.create(ADDRESS, ORIGINAL, RETRY, 1.0)
    for position in range(len(token)):
        changed = token[:position] + bytes([token[position] ^ 1]) + token[position + 1 :]
        assert refusal(tokens, changed) is TokenRefusal.FORGED


def test_a_token_of_another_endpoint_is_refused_as_forged() -> None:
    token = RetryTokens().create(ADDRESS, ORIGINAL, RETRY, 1.0)
    assert refusal(RetryTokens(), token) is TokenRefusal.FORGED


def test_what_is_remembered_is_bounded_and_nothing_is_taken_twice_for_that() -> None:
    tokens = RetryTokens(remembered=10)
    made = [tokens.create(ADDRESS, ORIGINAL, RETRY, 1.0 + number / 100) for number in range(100)]
    for number, token in enumerate(made):
        tokens.validate(token, ADDRESS, RETRY, 1.0 + number / 100)
    assert len(tokens._used) == 10
    reasons = [refusal(tokens, token, now=2.0) for token in made]
    assert reasons == [TokenRefusal.EXPIRED] * 90 + [TokenRefusal.REPLAYED] * 10


def test_used_tokens_are_forgotten_once_they_are_too_old() -> None:
    tokens = RetryTokens()
    for number in range(50):
        now = number * LIFETIME_S / 5
        tokens.validate(tokens.create(ADDRESS, ORIGINAL, RETRY, now), ADDRESS, RETRY, now)
    assert len(tokens._used) <= 7


def test_endpoints_with_one_key_take_each_others_tokens_once_each() -> None:
    one, other = RetryTokens(bytes(16)), RetryTokens(bytes(16))
    token = one.create(ADDRESS, ORIGINAL, RETRY, 1.0)
    assert other.validate(token, ADDRESS, RETRY, 1.5).original_destination_connection_id == ORIGINAL
    assert refusal(other, token) is TokenRefusal.REPLAYED
