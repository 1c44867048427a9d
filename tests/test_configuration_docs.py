"""docs/configuration.md against the code. `python -m tests.test_configuration_docs` writes its tables anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quicbus.logs import LoggingSettings
from quicbus.setting_docs import describe_settings, markdown_table
from quicbus.settings import ClientSettings
from quicbus_broker.settings import BrokerSettings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
KINDS = {"Broker": BrokerSettings, "Client and commands": ClientSettings, "Logging, of every command": LoggingSettings}


def section_of(title: str, text: str) -> str:
    match = re.search(rf"^## {re.escape(title)}\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/configuration.md has no section {title!r}"
    return match[1]


@pytest.mark.parametrize("title", KINDS)
def test_page_shows_every_setting_as_the_code_has_it(title: str) -> None:
    assert markdown_table(KINDS[title]) in section_of(title, PAGE.read_text())


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_setting_is_explained(kind: type) -> None:
    for setting in describe_settings(kind):
        assert setting.text.endswith("."), f"{kind.__name__}.{setting.name} has no docstring"


if __name__ == "__main__":
    head = PAGE.read_text().partition("\n## ")[0].rstrip()
    PAGE.write_text(
        "\n\n".join([head, *(f"## {title}\n\n{markdown_table(kind)}" for title, kind in KINDS.items())]) + "\n"
    )
