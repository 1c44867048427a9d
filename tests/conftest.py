"""What all tests share: hypothesis draws the same examples in every run; engines, data folders, broker processes."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from quicbus.testing.launcher import BrokerProcess, fast_starts
from tests.patient_loop import patient_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A busy machine does not fail property tests.
settings.register_profile("quicbus", derandomize=True, deadline=None)
settings.load_profile("quicbus")

ENGINES = ["aioquic", *(["qh3"] if importlib.util.find_spec("qh3") else [])]
"""The real engines that are installed; the memory engine has tests of its own."""
LOGGERS = ("quicbus", "quicbus_broker", "quicbus_cli")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]] | None:
    """Tests run on a loop that does not take a busy machine for a silent peer."""
    return None if sys.platform == "win32" else {"patient": patient_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what looks at how Python runs the code where the modules are compiled (`make test-compiled`)."""
    if "TESTS_COMPILED" in os.environ:
        for item in items:
            if "interpreted" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="of modules that are not compiled"))


@pytest.fixture(scope="session", autouse=True)
def processes_start_fast() -> Iterator[None]:
    """Some seven hundred of them are started; what takes a command line is tested with one."""
    with fast_starts():
        yield


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A command that runs in this process sets up logging, and takes the records away from `caplog`."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(one.level, one.propagate, [*one.handlers]) for one in loggers]
    yield
    for one, (level, propagate, handlers) in zip(loggers, before, strict=True):
        if (one.level, one.propagate, one.handlers) != (level, propagate, handlers):
            one.setLevel(level)
            one.propagate, one.handlers = propagate, handlers


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each real engine in turn."""
    name: str = request.param
    return name


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder that is not there yet."""
    return tmp_path / "data"


@pytest.fixture
def broker(engine: str, data_dir: Path) -> Iterator[BrokerProcess]:
    """A broker process of this test alone, with a data folder of its own."""
    with BrokerProcess(data_dir=data_dir, engine=engine) as process:
        yield process


@pytest.fixture(scope="session")
def shared_broker(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker process for all tests that only publish and subscribe to topics of their own."""
    with BrokerProcess(data_dir=tmp_path_factory.mktemp("shared") / "data", engine=engine) as process:
        yield process
