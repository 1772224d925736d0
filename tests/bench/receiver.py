"""The operator of the throughput runs: nginx, which uses little CPU and counts its requests."""

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from predictu_dispatch.embedded_postgres.binaries import free_port
from tests.bench.child_process import ChildProcess

BODY = '{"status":"OK","balance":100000,"transaction_id":"op-tx-1"}'
_START_TIMEOUT_S = 5.0
_RETRY_S = 0.02
_CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 75s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type application/json;
  ssl_session_cache off;
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    {tls}
    location = /status {{ stub_status; }}
    location / {{ return 200 '{body}'; }}
  }}
}}
"""
_TLS = """listen 127.0.0.1:{port} ssl backlog=8192;
    ssl_certificate {certificate};
    ssl_certificate_key {key};"""
_COUNTS = re.compile(r"^ (\d+) \d+ (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counters of nginx since its start, including the request for them."""

    connections: int
    requests: int


def nginx() -> str:
    """The path of nginx. Raises RuntimeError with the package to install if it is missing."""
    found = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if found is None:
        raise RuntimeError("make bench needs nginx as the operator; on Debian: apt-get install nginx-light")
    return found


class Receiver(ChildProcess):
    """An nginx on free loopback ports, over HTTP and, with a certificate, over TLS."""

    def __init__(self, folder: Path, *, certificate: Path | None = None, key: Path | None = None) -> None:
        program = nginx()
        folder.mkdir()
        # nginx's worker is another user if we are root.
        folder.chmod(0o755)
        self.port, self.tls_port = free_port(), free_port()
        tls = _TLS.format(port=self.tls_port, certificate=certificate, key=key) if certificate else ""
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, port=self.port, tls=tls, body=BODY), encoding="utf-8")
        super().__init__(
            [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)], log=folder / "nginx.log"
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/predictu"

    @property
    def tls_url(self) -> str:
        return f"https://localhost:{self.tls_port}/predictu"

    async def counts(self, session: aiohttp.ClientSession) -> Counts:
        """The counters so far. Raises RuntimeError if nginx does not start."""
        give_up_at_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{self.port}/status") as answer:
                    found = _COUNTS.search(await answer.text())
                    assert found is not None
                    return Counts(connections=int(found[1]), requests=int(found[2]))
            except aiohttp.ClientConnectorError as error:
                if not self.is_alive or time.monotonic() > give_up_at_s:
                    raise RuntimeError(f"nginx does not answer: {self.output}") from error
                time.sleep(_RETRY_S)  # noqa: ASYNC251 -- nothing else runs before it is up.
