"""Checks of the way to a broker's address: does anything come back, which QUIC versions, which sizes of datagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.transport.connection import shown_address
from quicbus.transport.endpoint import NEAR_DATAGRAM_SIZE
from quicbus_cli.doctor.datagrams import PROBE_SIZE, Answer, Outcome, probe
from quicbus_cli.doctor.finding import Finding, failure, ok, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.transport.connection import Address

__all__ = ["check_path", "check_udp", "check_version", "measure_path", "sizes_for"]

QUIC_VERSION = 1
FAR_SIZE = 1440
"""About what qh3 finds by itself on Ethernet with IPv6 and a tunnel; docs/design/transport.md."""


def check_udp(address: Address, answer: Answer, *, is_only_way: bool = True) -> Finding:
    """Judge the answer to a probe. `is_only_way`: no other address of the broker answers, so this one must."""
    where = shown_address(address)
    match answer.outcome:
        case Outcome.QUIC:
            return ok("UDP", f"{where} answers within {answer.rtt_s * 1000:.1f} ms")
        case Outcome.REFUSED:
            seen = f"{where}: its host is reached and says that nobody listens on this port"
            remedy = "start the broker there (`quicbus broker`), or correct the port in the URL"
        case Outcome.UNREACHABLE:
            seen = f"{where}: {answer.reason}"
            remedy = "check this machine's network, VPN and outgoing firewall"
        case Outcome.OTHER:
            seen = f"{where}: something answers that is not QUIC"
            remedy = "correct the port in the URL: another service has this one"
        case _:
            seen = f"{where}: nothing comes back, not even a refusal"
            remedy = (
                f"let UDP port {address[1]} through the firewalls on the way, there and here, both ways; also see "
                "whether that machine runs and has this address"
            )
    if is_only_way:
        return failure("UDP", seen, remedy)
    return warning("UDP", seen, f"clients go on with another address; {remedy}")


def check_version(answer: Answer) -> Finding:
    """Judge which QUIC versions a listener named."""
    if QUIC_VERSION in answer.versions:
        return ok("QUIC version", "1, as here")
    named = ", ".join(f"0x{version:x}" for version in answer.versions)
    return failure(
        "QUIC version", f"it speaks {named}, not version 1", "this is no quicbus broker; correct the URL, or update it"
    )


def sizes_for(*, is_near: bool, configured: int | None) -> tuple[int, ...]:
    """Return the sizes that matter on a way: to this host or beyond, and the setting `max_datagram_size`."""
    sizes = {PROBE_SIZE, FAR_SIZE, *((NEAR_DATAGRAM_SIZE,) if is_near else ()), *((configured,) if configured else ())}
    return tuple(sorted(sizes))


async def measure_path(address: Address, sizes: Sequence[int], timeout_s: float) -> list[Answer]:
    """Probe with each size in turn, the smallest first; what follows one that does not pass is not tried."""
    answers: list[Answer] = []
    for size in sizes:
        answers.append(await probe(address, timeout_s, size))
        if answers[-1].outcome is not Outcome.QUIC:
            break
    return answers


def check_path(answers: Sequence[Answer], sizes: Sequence[int], configured: int | None) -> Finding:
    """Judge what `measure_path` returned; it measures the way there, not the way back."""
    passed = max((answer.size for answer in answers if answer.outcome is Outcome.QUIC), default=0)
    if not all(answer.is_whole for answer in answers):
        return skipped("path MTU", "this system can't be told not to fragment, so sizes prove nothing")
    if passed == max(sizes):
        return ok("path MTU", f"{_listed(sizes)} bytes pass unfragmented on the way there")
    stuck = next(answer for answer in answers if answer.outcome is not Outcome.QUIC)
    why = "this host's interface is too small" if stuck.outcome is Outcome.TOO_LARGE else "nothing came back"
    if passed == 0:
        return failure(
            "path MTU",
            f"datagrams of {PROBE_SIZE} bytes do not pass ({why}); QUIC needs them",
            "raise the MTU of the tunnel or interface on the way to at least 1,280 bytes",
        )
    seen = f"{passed} bytes pass, {stuck.size} do not ({why})"
    if configured is not None and passed < configured:
        return failure("path MTU", seen, f"set max_datagram_size to {passed} or less, or leave it out")
    return warning("path MTU", f"{seen}; it works, more slowly", "raise the MTU of the tunnel or interface on the way")


def _listed(sizes: Sequence[int]) -> str:
    *first, last = [f"{size:,}" for size in sizes]
    return f"{', '.join(first)} and {last}" if first else last
