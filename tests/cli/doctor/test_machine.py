"""What a doctor says about this machine: engine, event loop, offload, buffers."""

from __future__ import annotations

import sys

import pytest

from quicbus.compiled import is_compiled
from quicbus.exceptions import InvalidSetting
from quicbus_cli.doctor.finding import State
from quicbus_cli.doctor.machine import check_buffer, check_engine, check_loop, check_machine, check_offload

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the remedy is Linux's")


def test_everything_is_looked_at_and_shown() -> None:
    findings = check_machine("auto")
    assert [finding.check for finding in findings] == [
        "versions",
        "engine",
        "event loop",
        "UDP offload",
        "receive buffer",
    ]
    assert "aioquic" in findings[0].seen
    assert ("(compiled)" in findings[0].seen) == is_compiled()


@pytest.mark.parametrize(
    ("setting", "qh3", "state"),
    [
        ("aioquic", "", State.WARNING),
        ("aioquic", "2.1", State.WARNING),
        ("no such engine", "", State.FAILURE),
    ],
)
def test_a_slow_or_impossible_engine_is_told(setting: str, qh3: str, state: State) -> None:
    finding = check_engine(setting, qh3)
    assert finding.state is state
    assert finding.remedy


def test_the_engine_in_use_is_named() -> None:
    pytest.importorskip("qh3")
    finding = check_engine("auto", "2.1")
    assert (finding.state, finding.seen) == (State.OK, "qh3 2.1")


def test_an_engine_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> None:
        raise InvalidSetting("engine", "qh3 is not installed")

    monkeypatch.setattr("quicbus_cli.doctor.machine.engine_named", refuse)
    finding = check_engine("qh3", "")
    assert finding.state is State.FAILURE
    assert "pip install" in finding.remedy


@linux_only
def test_uvloop_is_missed_where_it_is_not_installed() -> None:
    assert check_loop("0.21").state is State.OK
    assert check_loop("").state is State.WARNING


@pytest.mark.parametrize(
    ("segments", "coalesces", "said"),
    [(True, True, "GSO and GRO: many"), (False, True, "refuses GSO,"), (False, False, "refuses GSO and GRO")],
)
def test_offload_that_the_kernel_refuses_is_named(segments: bool, coalesces: bool, said: str) -> None:
    finding = check_offload(segments, coalesces)
    assert said in finding.seen
    assert finding.state is (State.OK if segments and coalesces else State.WARNING)


@linux_only
def test_a_small_receive_buffer_names_the_line_of_sysctl() -> None:
    assert check_buffer(8_388_608, 8_388_608, 212_992).state is State.OK
    finding = check_buffer(212_992, 8_388_608, 212_992)
    assert finding.state is State.WARNING
    assert "net.core.rmem_max is 212992" in finding.seen
    assert "`sysctl -w net.core.rmem_max=8388608`" in finding.remedy
