"""The sandbox starts, is found again, survives being killed, and leaves nothing that was not asked for."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg2
import pytest
from click.testing import CliRunner

from dicom_deid.cli import main
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.airflow import AirflowOptions, AirflowSandbox
from dicom_deid.sandbox.ports import are_free, free_ports
from dicom_deid.sandbox.process import ProcessIdentity
from dicom_deid.sandbox.state import SandboxState

PLUGINS = Path(__file__).parents[3] / "plugins"


@pytest.fixture
def directory(tmp_path):
    """A directory whose servers are stopped whatever happens."""
    # pytest's own directories let nobody else in, and run by root PostgreSQL is somebody else: the sandbox sees to it.
    directory = tmp_path / "sandbox"
    yield directory
    Sandbox(directory, keep=False).stop()


def processes(directory):
    """Processes that work on a directory, by their command lines."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(directory) in word for word in process.info["cmdline"] or ())
    ]


def state_of(directory):
    return SandboxState.load(directory / "state.json")


def test_data_survive_a_stop_and_are_found_by_another_process(directory):
    # Would catch state that only the starting process knows, and new ports or passwords over old data.
    with Sandbox(directory) as sandbox:
        sandbox.s3.client().create_bucket(Bucket="kept")
        sandbox.s3.client().put_object(Bucket="kept", Key="k", Body=b"x")
        with psycopg2.connect(sandbox.postgres_url) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (one int)")
        code = f"from dicom_deid.sandbox import Sandbox; print(Sandbox({str(directory)!r}).start().postgres_url)"
        environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
        other = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert other.stdout.strip() == sandbox.postgres_url
    assert processes(directory) == []
    assert not sandbox.is_running()
    with pytest.raises(ConfigurationError, match="sandbox up"):
        _ = sandbox.s3
    with Sandbox(directory) as sandbox:
        assert sandbox.s3.client().get_object(Bucket="kept", Key="k")["Body"].read() == b"x"
        with psycopg2.connect(sandbox.postgres_url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM kept")


def test_killed_servers_are_noticed_and_started_again(directory):
    # Would catch a state file that is believed although its processes are gone, as after a power cut.
    sandbox = Sandbox(directory).start()
    sandbox.s3.client().create_bucket(Bucket="kept")
    state = state_of(directory)
    for server in (state.s3, state.postgres):
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.stop()
    assert not sandbox.is_running()
    sandbox.start()
    assert [bucket["Name"] for bucket in sandbox.s3.client().list_buckets()["Buckets"]] == ["kept"]
    psycopg2.connect(sandbox.postgres_url).close()


def test_a_reused_process_id_is_not_taken_for_the_server(directory):
    # Would catch `down` killing an innocent process that got the number of a server of an earlier boot.
    mine = ProcessIdentity.of(os.getpid())
    state = SandboxState()
    state.s3.process = state.postgres.process = ProcessIdentity(mine.pid, mine.created - 1000)
    directory.mkdir()
    state.save(directory / "state.json")
    Sandbox(directory).stop()
    assert mine.is_running()


def test_damaged_state_file(directory):
    # Would catch a sandbox that cannot even be thrown away.
    directory.mkdir()
    (directory / "state.json").write_text('{"s3": 1')
    sandbox = Sandbox(directory, keep=False)
    assert not sandbox.is_running()
    sandbox.stop()
    assert not directory.exists()


def test_thrown_away_sandbox_leaves_nothing(directory):
    with Sandbox(directory, keep=False):
        assert len(processes(directory)) >= 2
    assert processes(directory) == []
    assert not directory.exists()


def test_secrets_are_readable_by_the_owner_alone(directory):
    # The sandbox's database may hold real pseudonyms: see the command line without --database.
    with Sandbox(directory) as sandbox:
        for path in (directory / "state.json", directory / "seaweedfs" / "identities.json"):
            assert path.stat().st_mode & 0o077 == 0
        assert (directory / "postgresql").stat().st_mode & 0o077 == 0
        assert sandbox.s3.secret_key not in repr(sandbox.s3)
        listening = {
            connection.laddr.ip
            for server in (state_of(directory).s3, state_of(directory).postgres)
            for connection in psutil.Process(server.process.pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(sandbox.postgres_url.replace(state_of(directory).password, "wrong"))


def test_ports_that_are_taken_are_seen():
    # Would catch a sandbox that fights another one for a port.
    ports = free_ports(3)
    assert len(set(ports)) == 3
    assert are_free(ports)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[1]))
        taken.listen(1)
        assert not are_free(ports)


def test_command_line(directory):
    # Would catch output that a shell cannot read, and exit codes that scripts rely on.
    def run(*arguments):
        return CliRunner().invoke(main, ["sandbox", *arguments, "--directory", str(directory)])

    assert run("status").exit_code == 1
    up = run("up", "--bucket", "one", "--bucket", "two")
    assert up.exit_code == 0, up.output
    printed = dict(line.removeprefix("export ").split("=", 1) for line in up.output.splitlines())
    sandbox = Sandbox(directory)
    assert printed["AWS_ENDPOINT_URL_S3"] == sandbox.s3.endpoint_url
    assert printed["DICOM_DEID_DATABASE"] == sandbox.postgres_url
    assert [bucket["Name"] for bucket in sandbox.s3.client().list_buckets()["Buckets"]] == ["one", "two"]
    assert run("up", "--bucket", "one").exit_code == 0
    assert run("status").output == up.output
    assert run("down").exit_code == 0
    assert run("status").exit_code == 1
    assert directory.exists()
    assert run("down", "--delete").exit_code == 0
    assert not directory.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_runs_as_an_ordinary_user():
    # Would catch steps that only root may do; the other tests, run by root, cover root.
    # The first round imports all that is needed: the interpreter may be where other users cannot read.
    code = (
        "import os, pwd, sys\n"
        "from dicom_deid.sandbox import Sandbox\n"
        "def go(name):\n"
        "    with Sandbox(sys.argv[1] + name, keep=False) as sandbox:\n"
        "        return len(sandbox.s3.client().list_buckets()['Buckets'])\n"
        "go('/root')\n"
        "nobody = pwd.getpwnam('nobody')\n"
        "os.setgroups([]); os.setgid(nobody.pw_gid); os.setuid(nobody.pw_uid)\n"
        "print(go('/nobody'))\n"
    )
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", code, home],
            env={"PATH": os.environ["PATH"], "HOME": home, "PYTHONPATH": str(PLUGINS)},
            capture_output=True,
            text=True,
        )
    assert done.stdout == "0\n", done.stderr


def test_servers_inherit_no_keys_and_no_credentials(directory, monkeypatch):
    secrets = {"DICOM_DEID_KEYS": "k1:sesame", "AWS_SECRET_ACCESS_KEY": "sesame", "PGPASSWORD": "sesame"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    started = []
    start = subprocess.Popen.__init__

    def watch(process, *arguments, **options):
        started.append(options.get("env"))
        start(process, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", watch)
    with Sandbox(directory):
        inherited = [Path(f"/proc/{number}/environ").read_bytes() for number in processes(directory)]
    assert len(inherited) >= 2
    assert not [text for text in inherited if b"sesame" in text]
    # Also programs that have ended by now, as the one that makes the data directory.
    assert len(started) > len(inherited)
    assert not [one for one in started if one is None or "sesame" in str(one)]
    airflow = AirflowSandbox(AirflowOptions(home=directory, database_url="", dags_folder=directory))
    assert "sesame" not in str(airflow.environment)
