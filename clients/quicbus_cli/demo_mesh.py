"""The demo's brokers: three processes, one mesh, in a temporary folder."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from quicbus.testing.launcher import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SITES", "three_brokers"]

SITES = ("tokyo", "osaka", "kyoto")
"""The first makes the mesh, the others join it; all three are on this machine."""


@contextlib.contextmanager
def three_brokers(engine: str) -> Iterator[dict[str, BrokerProcess]]:
    """Start brokers by name, ready when this returns. Leaving kills those that still run."""
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="quicbus-demo-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        first, *others = SITES
        founder = stack.enter_context(_broker(folder / first, engine, "--name", first))
        brokers = {first: founder}
        _issue(folder, first, others)
        for name in others:
            brokers[name] = stack.enter_context(_broker(folder / name, engine, "--seed", founder.address))
        yield brokers


def _broker(data_dir: Path, engine: str, *options: str) -> BrokerProcess:
    return BrokerProcess(data_dir=data_dir, engine=engine, options=options, own_session=True)


def _issue(folder: Path, first: str, others: list[str]) -> None:
    """Prepare the folders of further nodes, as `quicbus cert issue --node` does."""
    from quicbus.identity import load_authority, prepare_node_folder

    authority = load_authority(folder / first)
    for name in others:
        prepare_node_folder(authority, name, folder / name)
