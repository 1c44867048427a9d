"""qlog (draft-ietf-quic-qlog-main-schema): one file a connection, written when it ends."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["QlogFile"]

logger = logging.getLogger(__name__)


class _Traces(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


class QlogFile:
    """Where the trace of one connection goes: `<original destination connection id>_<client|server>.qlog`.

    The trace is held in memory until the connection ends. A folder that can't be written is reported in the log; the
    connection does not suffer.
    """

    __slots__ = ("_folder", "_is_client", "_traces")

    def __init__(self, traces: _Traces, folder: Path, is_client: bool) -> None:
        self._traces = traces
        self._folder = folder
        self._is_client = is_client

    def write(self) -> None:
        document = self._traces.to_dict()
        identifier = document["traces"][0]["common_fields"]["ODCID"]
        side = "client" if self._is_client else "server"
        path = self._folder / f"{identifier}_{side}.qlog"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document, default=str))
        except OSError as error:
            logger.warning("cannot write qlog file %s: %s", path, error)
