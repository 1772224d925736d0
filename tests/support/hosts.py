"""Simulated hosts: network namespaces connected by cables that a test can pull and plug.

In the middle is the backbone, a namespace in which Postgres and the operator have an address each.
Every host has a cable to either, and a third one by which the test reads its daemon's state. A
packet sent over a pulled cable is lost silently. The machine's own network is not touched. The
namespaces have no names, so they end with this process.
"""

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import aiohttp

from tests.support.daemons import WAIT_S, Daemon
from tests.support.environment import Environment
from tests.support.operators import receiving
from tests.support.postgres_proxy import PostgresProxy, proxied

_NEW_NETWORK = 0x40000000
"""CLONE_NEWNET. Source: unshare(2), <linux/sched.h>."""
_OF_THIS_THREAD = "/proc/thread-self/ns/net"
_IP_TIMEOUT_S = 20.0
_POSTGRES_AT, _OPERATOR_AT = "10.77.0.1", "10.77.0.2"
_libc = ctypes.CDLL(None, use_errno=True)


class Cable(Enum):
    """Where a host's cable leads; the value numbers its addresses."""

    POSTGRES = 0
    OPERATOR = 1
    TEST = 2


class Network:
    """A network namespace. It lives until close(), and as long as a process is in it."""

    def __init__(self) -> None:
        with _back_home():
            if _libc.unshare(_NEW_NETWORK) != 0:
                raise _error("unshare")
            self._fd = os.open(_OF_THIS_THREAD, os.O_RDONLY)
        self.ip("link set lo up")

    @property
    def path(self) -> str:
        """The path by which another program finds it while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Puts this thread into the network for what it opens or starts. Do not await inside."""
        with _back_home():
            if _libc.setns(self._fd, _NEW_NETWORK) != 0:
                raise _error("setns")
            yield

    def ip(self, *commands: str) -> None:
        """Runs these `ip` commands in the network. Raises OSError with the message of `ip`."""
        with self.entered():
            done = subprocess.run(
                ["ip", "-batch", "-"],  # noqa: S607 - wherever this system keeps it
                input="\n".join(commands),
                capture_output=True,
                text=True,
                check=False,
                timeout=_IP_TIMEOUT_S,
            )
        if done.returncode != 0:
            raise OSError(f"ip: {done.stderr.strip()}")

    def listening(self, address: str) -> socket.socket:
        """Returns a socket that listens in the network; its connections are served from outside."""
        with self.entered():
            return socket.create_server((address, 0))

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def _back_home() -> Iterator[None]:
    """Returns this thread to its own network afterwards."""
    home = os.open(_OF_THIS_THREAD, os.O_RDONLY)
    try:
        yield
    finally:
        failed = _libc.setns(home, _NEW_NETWORK) != 0
        os.close(home)
        if failed:
            raise _error("setns")


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A simulated machine with one daemon of the same name."""

    name: str
    number: int
    network: Network
    backbone: Network
    proxy: PostgresProxy
    """Between the backbone's end of its cable and Postgres itself."""

    def lay_cables(self) -> None:
        """Connects the host with all three cables."""
        for cable in Cable:
            here, there = self._addresses(cable)
            # Both ends have each other's hardware address permanently: ARP over a pulled cable
            # would fail with "no route to host" instead of silence.
            ours, theirs = self._hardware_addresses(cable)
            name, far = cable.name.lower(), self._far_end(cable)
            self.backbone.ip(
                f"link add {far} address {theirs} type veth peer name {name} address {ours} netns {self.network.path}",
                f"addr add {there}/30 dev {far}",
                f"link set {far} up",
            )
            self.network.ip(
                f"addr add {here}/30 dev {name}",
                f"link set {name} up",
                f"neigh replace {there} lladdr {theirs} dev {name} nud permanent",
            )
        for cable, address in ((Cable.POSTGRES, _POSTGRES_AT), (Cable.OPERATOR, _OPERATOR_AT)):
            self.network.ip(f"route add {address}/32 via {self._addresses(cable)[1]} dev {cable.name.lower()}")

    def pull(self, cable: Cable) -> None:
        """Pulls the cable: nothing gets through in either direction."""
        self.backbone.ip(f"link set {self._far_end(cable)} down")

    def plug(self, cable: Cable) -> None:
        self.backbone.ip(f"link set {self._far_end(cable)} up")

    def spawn(self, environment: Environment, **sections: Any) -> Daemon:
        """Starts the host's daemon."""
        with self.network.entered():
            return environment.fleet.spawn(
                self.name,
                database={"dsn": self.proxy.dsn().replace("127.0.0.1", _POSTGRES_AT)},
                http={"listen": f"{self._addresses(Cable.TEST)[0]}:0"},
                **sections,
            )

    def _addresses(self, cable: Cable) -> tuple[str, str]:
        """Returns the addresses of the host's end and the backbone's end."""
        first = 4 * cable.value
        return f"10.77.{self.number}.{first + 2}", f"10.77.{self.number}.{first + 1}"

    def _hardware_addresses(self, cable: Cable) -> tuple[str, str]:
        """Returns the hardware addresses of both ends, marked as locally administered."""
        return f"02:00:00:{self.number:02x}:{cable.value:02x}:02", f"02:00:00:{self.number:02x}:{cable.value:02x}:01"

    def _far_end(self, cable: Cable) -> str:
        return f"{cable.name.lower()}-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNetwork:
    environment: Environment
    operator_url: str
    hosts: dict[str, Host]

    def write_operator(self, **sections: Any) -> None:
        """Writes the operator's file with the address at which the hosts reach it."""
        self.environment.fleet.write_operator(self.operator_url, **sections)

    async def start(self) -> list[Daemon]:
        """Starts every host's daemon and waits until it is ready."""
        daemons = [host.spawn(self.environment) for host in self.hosts.values()]
        for daemon in daemons:
            await daemon.ready()
        return daemons


def why_no_hosts() -> str | None:
    """Returns why this system cannot have such hosts, None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the cables need `ip` of iproute2"
    try:
        network = Network()
        try:
            network.ip("link add one type veth peer name other")
        finally:
            network.close()
    except OSError as error:
        return f"no network namespace can be made here: {error}"
    return None


@asynccontextmanager
async def open_network(environment: Environment, *names: str) -> AsyncIterator[HostNetwork]:
    """Opens hosts with these names, all cables plugged in, and nothing running yet."""
    async with AsyncExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        network.ip(f"addr add {_POSTGRES_AT}/32 dev lo", f"addr add {_OPERATOR_AT}/32 dev lo")
        url = await stack.enter_async_context(receiving(environment.operator.receive, network.listening(_OPERATOR_AT)))
        stack.callback(environment.operator.release)
        hosts = {}
        for number, name in enumerate(names, 1):
            proxy = await stack.enter_async_context(proxied(environment.fleet.dsn, network.listening(_POSTGRES_AT)))
            of_host = Network()
            stack.callback(of_host.close)
            hosts[name] = Host(name=name, number=number, network=of_host, backbone=network, proxy=proxy)
            hosts[name].lay_cables()

        def socket_in_the_backbone(address: aiohttp.AddrInfoType) -> socket.socket:
            with network.entered():
                return socket.socket(*address[:3])

        environment.fleet.session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=socket_in_the_backbone),
                timeout=aiohttp.ClientTimeout(total=WAIT_S),
            )
        )
        yield HostNetwork(environment=environment, operator_url=url, hosts=hosts)
