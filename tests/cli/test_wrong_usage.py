"""What a tired person types wrong: one line on stderr, exit code 2, a remedy; no broker is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus.identity import DataFolder
from quicbus.testing.launcher import Ended, run_quicbus

if TYPE_CHECKING:
    from pathlib import Path


def failed(tmp_path: Path, *arguments: str, **environment: str) -> Ended:
    ended = run_quicbus(
        *arguments, environment={"QUICBUS_DATA_DIR": str(tmp_path / "data"), **environment}, cwd=tmp_path
    )
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr
    return ended


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pubish",), "quicbus: no such command: pubish; did you mean publish?"),
        (("xyzzy",), "quicbus: no such command: xyzzy; `quicbus --help` lists the commands"),
        (("pub",), "quicbus pub: no topic; for example: quicbus pub sensors/kitchen 21.5"),
        (("pub", "a"), "quicbus pub: no payload; give one of PAYLOAD, - (stdin), --lines (stdin) or --file FILE"),
        (("pub", "a", "b", "--lines"), "quicbus pub: more than one payload; give one of"),
        (
            ("pub", "a", "two", "words"),
            "quicbus pub: 2 payloads; quote a payload with spaces",
        ),
        (("pub", "a/#", "x"), "quicbus pub: 'a/#' holds a wildcard; one publishes to a single topic"),
        (("pub", "", "x"), "quicbus: invalid topic ''"),
        (("pub", "a", "b", "-H", "unit"), "quicbus pub: --header 'unit' is not KEY=VALUE"),
        (("pub", "http://host", "x", "y"), "quicbus pub: 2 payloads"),
        (("pub", "a", "b", "quic://host"), "quicbus pub: quic://host: URLs stand first, or behind --url"),
        (("sub", "a", "quic://host"), "quicbus sub: quic://host: URLs stand first, or behind --url"),
        (
            ("cert", "revoke"),
            "quicbus cert revoke: missing argument 'NAME|FILE|KEYID...'; `quicbus cert revoke --help` tells how",
        ),
        (
            ("broker", "127.0.0.1:4433"),
            "quicbus broker: got unexpected extra argument (127.0.0.1:4433); `quicbus broker --help` tells how",
        ),
        (("broker", "--join", ""), "quicbus: join (from option --join): the token is empty; give the one that"),
        (("permissions", "check", "al", "publish", "t"), "quicbus permissions check: invalid value for '{publish|sub"),
        (
            ("sub",),
            "quicbus sub: no filter; quote one with #, which is a comment to the shell",
        ),
        (("sub", "a/#/b"), "quicbus: invalid topic 'a/#/b'"),
        (("sub", "a", "--cuont", "1"), "quicbus sub: no such option '--cuont'. (Did you mean"),
        (("sub", "a", "--overflow", "drop"), "quicbus sub: invalid value for '--overflow'"),
        (("request",), "quicbus request: no topic"),
        (("reply", "a"), "quicbus reply: give one of PAYLOAD, --echo and --command CMD"),
        (("ping", "localhost"), "quicbus ping: 'localhost' is not a URL: quic://HOST:PORT"),
        (("bench", "--messages", "0"), "quicbus bench: invalid value for '--messages'"),
        (("cert", "issue"), "quicbus cert issue: give one of --client NAME and --node NAME"),
        (
            ("pub", "a", "b", "--engine", "qh"),
            "quicbus: engine (from option --engine): 'qh' is not allowed; allowed",
        ),
        (("pub", "a", "b", "--config", "no.toml"), "quicbus: config (from option --config): no.toml is not a file"),
        (
            ("pub", "a", "b", "--log-level", "loud"),
            "quicbus: log_level (from option --log-level): 'loud' is not",
        ),
        (("broker", "--listen", "nowhere"), "quicbus: listen (from option --listen): 'nowhere' is not HOST:PORT"),
        (("broker", "--retry", "sometimes"), "quicbus: retry (from option --retry): 'sometimes' is not allowed"),
        (
            ("broker", "--certificate", "a.pem"),
            "quicbus: private_key: certificate, private_key and authority",
        ),
    ],
)
def test_wrong_usage_is_one_line_with_the_remedy(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    ended = failed(tmp_path, *arguments)
    assert ended.code == 2
    assert ended.stderr.startswith(sentence)


def test_wrong_setting_in_the_environment_is_named(tmp_path: Path) -> None:
    ended = failed(tmp_path, "pub", "a", "b", QUICBUS_URLS="quic://localhost")
    assert ended.code == 2
    assert (
        ended.stderr == "quicbus: urls (from environment variable QUICBUS_URLS): unknown setting; did you mean url?\n"
    )


def test_wrong_setting_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "quicbus.toml").write_text("max_message_size = 0\nlisten = '127.0.0.1:0'\n")
    ended = failed(tmp_path, "broker")
    assert ended.code == 2
    assert ended.stderr.startswith("quicbus: max_message_size (from quicbus.toml): 0 is not allowed; allowed: a whole")


def test_missing_credential_names_the_remedy(tmp_path: Path) -> None:
    ended = failed(tmp_path, "pub", "a", "b")
    assert ended.code == 1
    assert str(tmp_path / "data" / "credential.pem") in ended.stderr
    assert "quicbus cert issue --client" in ended.stderr


def test_missing_file_is_a_failure_of_one_line(tmp_path: Path) -> None:
    ended = failed(tmp_path, "pub", "a", "--file", "missing.jpg")
    assert (ended.code, ended.stderr) == (1, "quicbus: missing.jpg: no such file or directory\n")


@pytest.mark.parametrize("command", [("cert", "enroll"), ("broker", "--join")])
def test_a_token_file_without_a_token_is_named(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    ended = failed(tmp_path, *command, "token")
    assert (ended.code, ended.stderr) == (
        1,
        "quicbus: token: there is no token in it; `quicbus token create` prints one\n",
    )


def test_whom_nobody_knows_is_not_revoked(tmp_path: Path) -> None:
    DataFolder.open(tmp_path / "data", may_create_authority=True).close()
    assert (
        "nobody: not in the log of certificates; `quicbus cert list`"
        in failed(tmp_path, "cert", "revoke", "nobody").stderr
    )


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    ended = run_quicbus("pub", "a", "--file", "missing.jpg", "--debug", cwd=tmp_path)
    assert ended.code == 1
    assert "Traceback" in ended.stderr
    assert ended.stderr.endswith("quicbus: missing.jpg: no such file or directory\n")


def test_help_reads_like_a_table_of_contents(tmp_path: Path) -> None:
    shown = run_quicbus("--help")
    assert shown.code == 0
    sections = [line for line in shown.stdout.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sections == [
        "Options:",
        "Begin here:",
        "Messages:",
        "Look and measure:",
        "Keys and certificates:",
        "Who may do what:",
    ]
    assert "publish, pub" in shown.stdout
    assert run_quicbus() == shown
    assert run_quicbus("cert").stdout.startswith("Usage: quicbus cert [OPTIONS] COMMAND")
    assert run_quicbus("pub", "--help").stdout.startswith("Usage: quicbus pub [OPTIONS] [URL] TOPIC [PAYLOAD]")
