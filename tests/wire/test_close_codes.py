from __future__ import annotations

from quicbus.wire.close_codes import CREDENTIAL_CODES, CloseCode


def test_credential_codes_are_those_from_0x100() -> None:
    assert {code for code in CloseCode if code.value >= 0x100} == CREDENTIAL_CODES
    assert CloseCode.PROOF_INVALID in CREDENTIAL_CODES
    assert CloseCode.GOODBYE not in CREDENTIAL_CODES


def test_only_goodbye_is_zero() -> None:
    assert [code for code in CloseCode if not code] == [CloseCode.GOODBYE]
