"""What the tests of the driver share."""

from __future__ import annotations

import pytest

from quicbus_broker.mesh import driver as driver_module
from tests.broker.mesh.driven import Network


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(driver_module, "addresses_of", made.addresses_of)
    return made
