"""`why` explains why a ready callback is not sent: operator, daemons, slots, rate, deadline."""

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.harness import OPERATOR, claim, retried
from tests.support.scene import Scene, in_order

pytestmark = pytest.mark.usefixtures("long_heartbeat_timeout")
NO_HEARTBEATS = "no daemon is running (none sends heartbeats), so nothing is sent; "


async def test_a_paused_operator_names_who_paused_it_and_why(scene: Scene) -> None:
    await scene.daemon()
    win, placement = await scene.due_win(), await scene.harness.place("b2")
    await scene.harness.person.execute(
        "select predictu_dispatch.pause_operator($1, 'wallet upgrade', 'ann@web-1')", OPERATOR
    )
    codes, text = await scene.why(win)
    assert codes == ["paused"]
    in_order(
        text,
        f"operator {OPERATOR} was paused at",
        "by ann@web-1: wallet upgrade",
        "it waits and uses no attempt",
        f"predictu-dispatch resume {OPERATOR}",
    )
    codes, text = await scene.why(placement)
    assert codes == ["paused"]
    assert "a producer waits for it, so it ends exhausted at once, without a debit" in text


async def test_an_open_circuit_names_its_failures_and_the_next_ping(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    await scene.operator(
        "circuit = 'open', circuit_since = now() - interval '5 min', consecutive_failures = 14,"
        " ping_at = now() + interval '4 min'"
    )
    codes, text = await scene.why(win)
    assert codes == ["circuit_open"]
    in_order(text, f"the circuit of operator {OPERATOR} has been open since", "(5 min)", "14 failures in a row")
    in_order(text, "the next PING is at", "(in 4 min)", "uses no attempt")

    await scene.harness.owner.execute("select predictu_dispatch.start_ping($1)", OPERATOR)
    ping = await scene.harness.owner.fetchval(
        "select ping_request_id from predictu_dispatch.operator where ping_at > now()"
    )
    codes, text = await scene.why(win)
    assert codes == ["circuit_half_open"]
    in_order(text, "has been half open since", f"PING {ping} (ready) decides")
    assert (await scene.why(ping))[0] == ["due"]


async def test_slow_start_after_the_circuit_closed(scene: Scene) -> None:
    await scene.daemon()
    _, win = await scene.due_wins("b1", "b2")
    # In the future: the circuit has just closed, however slow this machine is.
    await scene.operator("circuit_since = now() + interval '1 min'")
    codes, text = await scene.why(win)
    assert codes == ["slow_start"]
    in_order(text, "closed at", "slow start allows 1 of 4 slots, and 1 due callback is ahead")


async def test_retry_after_holds_one_lane(scene: Scene) -> None:
    await scene.daemon()
    win, placement = await scene.due_win(), await scene.harness.place("b2")
    await scene.operator("settlement_backoff_until = now() + interval '10 min'")
    codes, text = await scene.why(win)
    assert codes == ["backing_off"]
    in_order(text, f"operator {OPERATOR} sent Retry-After: its settlement callbacks wait until", "(in 10 min)")
    assert (await scene.why(placement))[0] == ["due"]


async def test_a_refused_token_names_the_host_whose_clock_is_wrong(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    await scene.harness.attempt(win, retried, reason="misconfigured", due_in_s=60.0)
    assert "clock" not in (await scene.why(win))[1]
    await scene.harness.owner.execute("update predictu_dispatch.daemon set clock_ahead_s = -2.0")
    in_order((await scene.why(win))[1], "attempt 1 ended at", "(on host web-host-1: the host's clock is 2.0 s ahead")


async def test_a_rate_limit_says_how_many_are_ahead_and_how_long_it_takes(scene: Scene) -> None:
    await scene.daemon(per_s=0.5)
    wins = await scene.due_wins("b0", "b1", "b2")
    await scene.harness.place("b-now")
    codes, text = await scene.why(wins[2])
    assert codes == ["rate"]
    in_order(text, "max_requests_per_s = 0.5, over all daemons", "3 due callbacks are ahead of it")
    in_order(text, "including interactive ones", "it is sent in about 6.0 s")
    # More than AHEAD_COUNT_MAX.
    await scene.harness.owner.execute(
        "insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params)"
        " select $1, gen_random_uuid(), 'PING', 'interactive', 'ready', '{}' from generate_series(1, 1500)",
        OPERATOR,
    )
    _, text = await scene.why(wins[2])
    in_order(text, "more than 1,000 due callbacks are ahead of it", "it is sent in more than 33 min")


async def test_full_slots_name_every_daemon_and_how_many_are_ahead(scene: Scene) -> None:
    await scene.daemon("host-1", slots=2, slots_max=3)
    await scene.daemon("host-2", slots=1, slots_max=3)
    wins = await scene.due_wins("b0", "b1", "b2", "b-ahead", "b-last")
    await scene.harness.place("b-in-the-other-lane")
    await claim(scene.harness.daemon, slots=2)
    await claim(scene.harness.daemon, slots=1, instance="host-2")
    codes, text = await scene.why(wins[-1])
    assert codes == ["slots_full"]
    in_order(
        text,
        f"all 3 settlement slots of operator {OPERATOR} are in use (host-1 2 of 2, host-2 1 of 1)",
        "1 due callback is ahead of it",
        "[settlement] max_in_flight = 3",
    )


async def test_an_operator_whose_file_no_daemon_has(scene: Scene) -> None:
    await scene.daemon("host-1", serves=False)
    await scene.daemon("host-2", seen_s_ago=999)
    win = await scene.due_win()
    codes, text = await scene.why(win)
    assert codes == ["not_served", "file_missing_here"]
    in_order(
        text,
        f"no running daemon has the file of operator {OPERATOR} (running: host-1)",
        f"if the operator is gone for good: predictu-dispatch cancel {win} --reason TEXT",
        "2. this host has no file of the operator",
        f"operators/{OPERATOR}.toml",
        "another host may have it",
    )
    file = f'operator_id = "{OPERATOR}"\ncallback_url = "https://w.example/p"\n[signing]\nkey_file = "key.pem"\n'
    scene.desk.write_operator(OPERATOR, file + "[interactive]\nmax_attempts = 0\n")
    codes, text = await scene.why(win)
    assert codes == ["not_served", "file_faulty_here"]
    in_order(
        text,
        "the operator's file on this host cannot be used by this user",
        "interactive.max_attempts = 0",
        "signing.key_file",
    )
    scene.desk.write_operator(OPERATOR, file)
    create_key_file(scene.desk.folder / "operators" / "key.pem", "EdDSA")
    assert (await scene.why(win))[0] == ["not_served"]
    await scene.harness.attempt(win, retried, due_in_s=3600.0)
    codes, text = await scene.why(win)
    assert codes == ["not_served", "due_later"]
    in_order(
        text,
        f"if the operator is gone for good: predictu-dispatch abandon {win} --reason TEXT",
        f"to stop the retries: predictu-dispatch abandon {win} --reason TEXT",
    )


async def test_no_running_daemon_names_the_last_one(scene: Scene) -> None:
    scene.desk.write_operator(OPERATOR, "")
    win = await scene.due_win()
    codes, text = await scene.why(win)
    assert codes == ["no_daemon", "file_faulty_here"]
    in_order(text, NO_HEARTBEATS + "there was none in the last day", "systemctl start predictu-dispatch")
    await scene.daemon("host-1", seen_s_ago=3000)
    await scene.daemon("host-2", seen_s_ago=600)
    _, text = await scene.why(win)
    in_order(text, NO_HEARTBEATS + "the last one was host-2 on host web-host-2, last seen", "(10 min ago)")


async def test_deadlines(scene: Scene) -> None:
    await scene.daemon()
    placement = await scene.harness.place()
    await scene.operator("settlement_backoff_until = now() + interval '10 min', enabled = false")
    await scene.callback(placement, "expires_at = now() + interval '5 min'")
    codes, text = await scene.why(placement)
    assert codes == ["operator_disabled", "deadline_runs"]
    in_order(text, "its deadline is at", "(in 5 min)", "it ends exhausted, without a debit")
    await scene.harness.let_deadline_pass(placement)
    codes, text = await scene.why(placement)
    assert codes == ["deadline_passed", "operator_disabled"]
    in_order(text, "its deadline passed at", "within seconds it ends exhausted, without a debit")
    await scene.callback(placement, "expires_at = now() - interval '31 s'")
    _, text = await scene.why(placement)
    in_order(text, "its deadline passed at", "as soon as a daemon can write", "/readyz", "it ends exhausted")

    await scene.operator("enabled = true")
    win = await scene.due_win("b2")
    await scene.callback(win, "expires_at = now() + interval '9 min'")
    codes, text = await scene.why(win)
    assert codes == ["backing_off", "deadline_first"]
    in_order(
        text,
        "its deadline comes before that",
        "(in 9 min)",
        "it ends exhausted at its deadline, and needs manual review",
    )
