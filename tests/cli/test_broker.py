"""`quicbus broker` as a process: what it prints, how it ends, what stops it from starting."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus.testing.launcher import BrokerProcess, Launched, quicbus_command, run_quicbus
from tests.cli.commands import quicbus, subscriber

if TYPE_CHECKING:
    from pathlib import Path


def test_first_line_of_stdout_says_ready(broker: BrokerProcess) -> None:
    first = json.loads(broker.stdout_lines[0])
    assert set(first) == {"event", "url", "node", "name", "mode", "advertised", "seeds", "entered"}
    assert first["event"] == "ready"
    assert first["url"].startswith("quic://127.0.0.1:")
    assert len(bytes.fromhex(first["node"])) == 16
    assert (first["mode"], first["seeds"]) == ("hybrid", [])
    assert first["advertised"] == [first["url"].removeprefix("quic://")]


@pytest.mark.parametrize("end", ["interrupt", "terminate"])
def test_broker_stops_gracefully_when_it_is_told_to(broker: BrokerProcess, end: str) -> None:
    getattr(broker, end)()
    ended = broker.wait()
    assert ended.code == 0
    stopped = json.loads(ended.stdout.splitlines()[-1])
    assert stopped["event"] == "stopped"
    parts = {"books", "edge", "mesh", "transport", "joining", "handover"}
    assert set(stopped["statistics"]) == {*parts, "cert_expires_in_seconds", "trust_version", "revoked"}
    assert 29 * 86_400 < stopped["statistics"]["cert_expires_in_seconds"] <= 30 * 86_400
    joining = stopped["statistics"]["joining"]
    assert not any(joining.pop("limits").values())
    assert joining == {"open": 0, "joined": 0, "renewed": 0, "refused": {}}
    assert stopped["statistics"]["books"]["deliveries"] == 0
    assert ended.stderr == ""


def test_keys_are_private(broker: BrokerProcess) -> None:
    assert stat.S_IMODE(broker.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(broker.credential_path.stat().st_mode) == 0o600


def test_restarted_broker_keeps_its_id(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as first:
        first.stop()
    with BrokerProcess(data_dir=data_dir, engine=engine, listen=first.address) as second:
        assert (second.node, second.url) == (first.node, first.url)


def test_people_get_a_banner(data_dir: Path) -> None:
    command = [*quicbus_command(), "broker", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
    with Launched(command) as process:
        process.wait_line("quicbus broker is ready")
        process.wait_line("quicbus sub 'sensors/#'")
        assert str(data_dir / "credential.pem") in process.wait_line("credential")
        process.interrupt()
        ended = process.wait()
    assert ended.code == 0
    assert ended.stdout.endswith("stopped\n")


def test_people_are_told_when_a_broker_has_joined_a_mesh(broker: BrokerProcess, tmp_path: Path) -> None:
    folder = tmp_path / "tokyo"
    issued = quicbus(broker, "cert", "issue", "--node", "tokyo", "--out", str(folder))
    assert f"quicbus broker --data-dir {folder} --seed HOST:PORT" in issued.stdout
    options = ["--listen", "127.0.0.1:0", "--data-dir", str(folder), "--seed", broker.address]
    with Launched([*quicbus_command(), "broker", *options]) as process:
        assert f" --data-dir {folder}" in process.wait_line("linked with ")
        process.interrupt()
        ended = process.wait()
    assert (ended.code, ended.stderr) == (0, "")


def test_broker_goes_on_after_a_client_has_crashed(broker: BrokerProcess) -> None:
    with subscriber(broker, "crash/#") as crashing:
        crashing.kill()
        crashing.wait()
    # What is sent to the dead port comes back as an error on the broker's socket.
    for _ in range(3):
        assert quicbus(broker, "pub", "crash/it", "x").code == 0
    assert quicbus(broker, "ping", "--count", "1").code == 0


def test_port_in_use_is_named_with_the_remedy(broker: BrokerProcess, tmp_path: Path) -> None:
    ended = run_quicbus("broker", "--listen", broker.address, "--data-dir", str(tmp_path / "other"))
    assert ended.code == 1
    assert ended.stderr.startswith(f"quicbus: UDP port {broker.address.rpartition(':')[2]} is in use")
    assert "--listen" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_seed_without_a_node_certificate_makes_nothing_and_names_the_remedies(data_dir: Path) -> None:
    ended = run_quicbus("broker", "--seed", "host:4433", "--data-dir", str(data_dir))
    assert ended.code == 1
    assert "`quicbus cert issue --node NAME --out DIR`" in ended.stderr
    assert "--join" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--seed", "host:x"), "seed"),
        (("--seed", "a:1", "--seed", "::1"), "seed"),
        (("--seed", ""), "seed"),
        (("--advertise", " "), "advertise"),
        (("--advertise", "[::]:4433"), "advertise"),
        (("--mode", "both"), "mode"),
        (("--max-hops", "0"), "max_hops"),
    ],
)
def test_a_wrong_option_of_the_mesh_is_one_line_and_code_2(options: tuple[str, ...], name: str) -> None:
    ended = run_quicbus("broker", *options)
    assert ended.code == 2
    assert f"{name} (from option {options[-2]})" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_data_folder_in_use_is_named(broker: BrokerProcess) -> None:
    ended = run_quicbus("broker", "--listen", "127.0.0.1:0", "--data-dir", str(broker.data_dir))
    assert ended.code == 1
    assert str(broker.data_dir) in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_settings_come_from_file_environment_and_options(tmp_path: Path, engine: str) -> None:
    config = tmp_path / "quicbus.toml"
    config.write_text(f'listen = "127.0.0.1:0"\nmax_message_size = 10\nengine = "{engine}"\ndata_dir = "data"\n')
    command = [*quicbus_command(), "broker", "--config", str(config), "--json"]
    with Launched(command, environment={"QUICBUS_MAX_MESSAGE_SIZE": "20"}) as process:
        url = json.loads(process.wait_line("ready"))["url"]
        here = {"QUICBUS_DATA_DIR": str(tmp_path / "data"), "QUICBUS_URL": url, "QUICBUS_ENGINE": engine}
        assert run_quicbus("pub", "a", "x" * 20, environment=here).code == 0
        ended = run_quicbus("pub", "a", "x" * 21, environment=here)
        assert (ended.code, "at most 20" in ended.stderr) == (1, True)


def test_nobody_there_names_the_url_and_the_remedy(broker: BrokerProcess) -> None:
    broker.stop()
    ended = run_quicbus("pub", "a", "b", "--connect-timeout", "1", environment=broker.environment)
    assert ended.code == 1
    assert ended.stderr.startswith(f"quicbus: could not connect: {broker.url}: ")
    assert "Start one with `quicbus broker`" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_credential_of_another_mesh_is_refused_with_the_remedy(broker: BrokerProcess, tmp_path: Path) -> None:
    with BrokerProcess(data_dir=tmp_path / "other", engine=broker.engine) as other:
        other.stop()
    ended = run_quicbus("pub", "a", "b", "--url", broker.url, "--credentials", str(other.credential_path))
    assert ended.code == 1
    assert "mesh" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_log_lines_name_the_node(engine: str, data_dir: Path) -> None:
    options = ["--log-level", "debug", "--log-format", "json"]
    with BrokerProcess(data_dir=data_dir, engine=engine, options=options) as broker:
        assert run_quicbus("pub", "a", "b", environment=broker.environment).code == 0
        line = json.loads(broker.wait_line("127.0.0.1:", stream="stderr"))
    assert line["node"] == broker.node


def test_qlog_is_written_for_each_connection(engine: str, data_dir: Path, tmp_path: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine, options=["--qlog", str(tmp_path / "qlog")]) as broker:
        assert run_quicbus("pub", "a", "b", environment=broker.environment).code == 0
        broker.stop()
    assert list((tmp_path / "qlog").iterdir())
