"""Variables of the environment that other programs obey change nothing in the daemon."""

import socket

from tests.support.environment import Environment


async def test_no_variable_makes_the_daemon_write_tls_keys_or_use_a_proxy(environment: Environment) -> None:
    keys = environment.fleet.folder / "tls-keys"
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy")
        proxies = {name: address for lower in names for name in (lower, lower.upper())}
        # The file is created with the first TLS context, also if no connection uses it.
        daemon = environment.fleet.spawn("host-1", environment={"SSLKEYLOGFILE": str(keys), **proxies})
        await daemon.ready()
        await environment.harness.place()
        await environment.until_all_final()
    assert await environment.states() == {"delivered": 1}
    assert not keys.exists()
