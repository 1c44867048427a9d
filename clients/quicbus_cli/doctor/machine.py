"""Checks of this machine: QUIC implementation and event loop, batched UDP, buffers of sockets."""

from __future__ import annotations

import contextlib
import platform
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from quicbus.compiled import is_compiled
from quicbus.exceptions import InvalidSetting
from quicbus.transport.engines import engine_named
from quicbus.transport.udp_socket import SOCKET_BUFFER_SIZE, SOL_UDP, UDP_GRO, UDP_SEGMENT, bind_udp
from quicbus_cli.doctor.finding import Finding, failure, ok, skipped, warning

__all__ = ["check_buffer", "check_engine", "check_loop", "check_machine", "check_offload", "check_versions"]

RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
_FAST = "pip install 'quicbus[fast]'"


def check_machine(engine: str) -> list[Finding]:
    """Look at this machine; `engine` is the setting of that name."""
    return [
        check_versions(),
        check_engine(engine, installed("qh3")),
        check_loop(installed("uvloop")),
        _check_offload_here(),
        _check_buffer_here(),
    ]


def installed(package: str) -> str:
    """Return the version of an installed package, else an empty text."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def check_versions() -> Finding:
    form = "compiled" if is_compiled() else "not compiled"
    packages = ", ".join(f"{name} {installed(name)}" for name in ("aioquic", "cryptography"))
    ours = f"quicbus {installed('quicbus')} ({form})"
    return ok(
        "versions", f"{ours}, {packages}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    )


def check_engine(setting: str, qh3: str) -> Finding:
    """`qh3`: its version, empty where it is not installed."""
    try:
        name = engine_named(setting).name
    except (InvalidSetting, ImportError) as error:
        why = error.why if isinstance(error, InvalidSetting) else str(error)
        return failure("engine", f"engine {setting!r} can't be used: {why}", f"{_FAST}, or set the engine to aioquic")
    if name == "aioquic" and not qh3:
        return warning("engine", "aioquic; qh3 is not installed and is several times as fast", _FAST)
    if name == "aioquic" and setting == "aioquic":
        return warning("engine", f"aioquic, as set, although qh3 {qh3} is here and faster", "set the engine to auto")
    return ok("engine", f"{name} {qh3 if name == 'qh3' else installed(name)}")


def check_loop(uvloop: str) -> Finding:
    if sys.platform == "win32":
        return ok("event loop", "asyncio's; uvloop does not exist for Windows")
    if uvloop:
        return ok("event loop", f"uvloop {uvloop}")
    return warning("event loop", "asyncio's; uvloop is not installed and is faster", _FAST)


def check_offload(can_segment: bool, can_coalesce: bool) -> Finding:
    """`can_segment`: UDP_SEGMENT (GSO), `can_coalesce`: UDP_GRO."""
    missing = [name for name, there in (("GSO", can_segment), ("GRO", can_coalesce)) if not there]
    if not missing:
        return ok("UDP offload", "GSO and GRO: many datagrams in one call of the system")
    return warning(
        "UDP offload",
        f"the kernel refuses {' and '.join(missing)}, so each datagram costs a call of its own",
        "run on Linux 5.0 or later (GSO 4.18, GRO 5.0); some sandboxes and containers lack them",
    )


def check_buffer(got: int, asked: int, most: int | None) -> Finding:
    """`got`: what a socket may hold, in the unit of `asked`; `most`: net.core.rmem_max where the system tells."""
    limit = "" if most is None else f"; net.core.rmem_max is {most}"
    seen = f"a socket gets {got} bytes for what arrives, {asked} were asked for{limit}"
    if got >= asked:
        return ok("receive buffer", seen)
    if sys.platform == "linux":
        command = f"`sysctl -w net.core.rmem_max={asked}`, and the same line in /etc/sysctl.d/ to keep it"
    elif sys.platform == "darwin":
        command = f"`sysctl -w kern.ipc.maxsockbuf={2 * asked}`"
    else:
        command = "raise the limit of socket buffers of this system"
    return warning("receive buffer", f"{seen}: bursts are lost, and a loss halves a connection's rate", command)


def _check_offload_here() -> Finding:
    if sys.platform != "linux":
        return skipped("UDP offload", f"only Linux has it, this is {platform.system()}")
    with contextlib.closing(bind_udp(None)) as udp:
        return check_offload(_takes(udp, UDP_SEGMENT, 0), _takes(udp, UDP_GRO, 1))


def _check_buffer_here() -> Finding:
    with contextlib.closing(bind_udp(None)) as udp:
        size = udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    # socket(7): Linux doubles what is asked for, and tells the double.
    got = size // 2 if sys.platform == "linux" else size
    most = None
    with contextlib.suppress(OSError, ValueError):
        most = int(RMEM_MAX.read_text())
    return check_buffer(got, SOCKET_BUFFER_SIZE, most)


def _takes(udp: socket.socket, option: int, value: int) -> bool:
    try:
        udp.setsockopt(SOL_UDP, option, value)
    except OSError:
        return False
    return True
