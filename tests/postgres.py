"""A real PostgreSQL server in its own folder, for tests; Debian has a package of it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

USER, PASSWORD = "search", "it's s3cret/p@ss:w%rd"
UNESCAPED = "'/ "
"""Characters of the password that the URL does not escape, which SQLAlchemy allows."""
_SERVER = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True)), None)
needs_postgres = pytest.mark.skipif(
    _SERVER is None and shutil.which("pg_ctl") is None,
    reason="PostgreSQL's server is not installed (apt-get install postgresql)",
)


@contextmanager
def running_postgres(*databases: str) -> Iterator[dict[str, str]]:
    """Run a server that asks for a password; yield each database's URL, which has the password."""
    programs = _SERVER.parent if _SERVER is not None else Path(shutil.which("pg_ctl") or "").parent
    # A short path, because it holds a socket, and outside of folders that only root can read.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "password").write_text(PASSWORD)
    # The server refuses to run as root; Debian's package creates a user for it.
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    for path in (folder, folder / "password"):
        os.chown(path, account.pw_uid, account.pw_gid)

    def run(program: str, *arguments: object, **variables: str) -> None:
        command = [str(programs / program), *map(str, arguments)]
        prefix = ["runuser", "-u", account.pw_name, "--"] if os.geteuid() == 0 else []
        with (folder / "output").open("a") as output:
            environment = {**os.environ, **variables}
            subprocess.run(
                [*prefix, *command],
                check=True,
                timeout=300,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=folder,
            )

    try:
        run(
            "initdb",
            "-D",
            folder / "data",
            "-U",
            USER,
            "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}",
            "--no-sync",
        )
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(
            "pg_ctl",
            "-D",
            folder / "data",
            "-w",
            "-t",
            200,
            "-o",
            options,
            "-l",
            folder / "log",
            "start",
        )
        for name in databases:
            run("createdb", "-h", "127.0.0.1", "-p", port, "-U", USER, name, PGPASSWORD=PASSWORD)
        yield {
            name: f"postgresql://{USER}:{quote(PASSWORD, safe=UNESCAPED)}@127.0.0.1:{port}/{name}"
            for name in databases
        }
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            run("pg_ctl", "-D", folder / "data", "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)
