"""Engines by name."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from quicbus.exceptions import InvalidSetting
from quicbus.transport import engines
from quicbus.transport._library import quiet_library_logger
from quicbus.transport.engines import ENGINE_NAMES, engine_named


@pytest.mark.parametrize("name", ["aioquic", "qh3", "memory"])
def test_an_engine_says_its_name(name: str) -> None:
    assert engine_named(name).name == name


def test_auto_takes_qh3_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_named("auto").name == "qh3"
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert engine_named("auto").name == "aioquic"


@pytest.mark.parametrize("name", ["", "QH3", "quiche"])
def test_an_unknown_name_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(InvalidSetting, match="aioquic, qh3") as caught:
        engine_named(name)
    assert caught.value.name == "engine"


def test_what_is_not_encrypted_is_not_offered_as_a_setting() -> None:
    assert ENGINE_NAMES == ("auto", "aioquic", "qh3")


def test_qh3_that_is_not_installed_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> object:
        raise ModuleNotFoundError("No module named 'qh3'", name="qh3.quic")

    monkeypatch.setattr(engines, "import_module", import_module)
    with pytest.raises(InvalidSetting, match=r"pip install 'quicbus\[fast\]'"):
        engine_named("qh3")


def test_asking_for_one_engine_does_not_import_the_other() -> None:
    code = (
        "import sys; from quicbus.transport.engines import engine_named; engine_named('aioquic'); "
        "assert 'qh3' not in sys.modules; import quicbus.transport.engine"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_seam_imports_no_engine() -> None:
    code = "import sys, quicbus.transport.engines; assert not {'aioquic', 'qh3', 'cryptography'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_libraries_log_is_quiet_unless_the_application_set_its_level() -> None:
    library_logger = logging.getLogger("quic")
    level = library_logger.level
    try:
        library_logger.setLevel(logging.NOTSET)
        quiet_library_logger()
        assert not library_logger.isEnabledFor(logging.ERROR)
        library_logger.setLevel(logging.DEBUG)
        quiet_library_logger()
        assert library_logger.isEnabledFor(logging.DEBUG)
    finally:
        library_logger.setLevel(level)
