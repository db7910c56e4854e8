"""A real nginx with our site, started by the test, with all its files in a folder of the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import START_SECONDS, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[1]

# Debian's nginx.conf around /etc/nginx/conf.d, with all paths below one folder, in the foreground. Under root, the
# workers stay root: no other user may enter the folder of a test.
_MAIN = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 768; }}
http {{
    access_log off;
    gzip on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {sites}/*.conf;
}}
"""


def nginx_binary() -> str:
    """The path of nginx. If it is missing, the test is skipped, or fails in CI."""
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", str(PROJECT / ".cache/servers/usr/sbin")))
    binary = shutil.which("nginx", path=path)
    if binary is None:
        message = "needs a real nginx: apt-get install nginx"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return binary


def nginx_command(folder: Path, sites: Path) -> list[str]:
    """The command that starts nginx, or with `-t` tests its configuration."""
    folder.mkdir(exist_ok=True)
    main = folder / "nginx.conf"
    main.write_text(_MAIN.format(folder=folder, sites=sites, user="user root;" if os.getuid() == 0 else ""))
    return [nginx_binary(), "-p", str(folder), "-e", "stderr", "-c", str(main)]


@contextlib.contextmanager
def running_nginx(command: list[str], port: int) -> Iterator[list[str]]:
    """Run nginx, wait until it listens, and collect its complaints in the list."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    complaints: list[str] = []
    stderr = process.stderr
    assert stderr is not None
    reader = threading.Thread(target=lambda: complaints.extend(line.decode() for line in stderr), daemon=True)
    reader.start()
    try:
        wait_for_port(port, process)
        yield complaints
    finally:
        process.terminate()  # stops at once, with its workers
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(START_SECONDS)
        reader.join(START_SECONDS)
        stderr.close()
