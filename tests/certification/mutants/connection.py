"""Mutants that do not answer as they should."""

from __future__ import annotations

from tests.certification.mutants.mutant import Certificate, Change, Mutant, before

_RULES, _RECEIVER = "rules.py", "receiver.py"

CONNECTION = (
    Mutant(
        name="certificate-of-another-host",
        wrong="The certificate is for another host.",
        scenario="connection-tls",
        certificate=Certificate(host="wallet.example"),
    ),
    Mutant(
        name="certificate-has-ended",
        wrong="The certificate ended yesterday.",
        scenario="connection-tls",
        certificate=Certificate(days=-1),
    ),
    Mutant(
        name="no-ping",
        wrong="PING is answered with 404.",
        scenario="connection-ping",
        changes=(
            Change(
                file=_RULES,
                old="return Ruling(status=Status.OK)\n",
                new="return Ruling(status=Status.BAD_REQUEST, http_status=404)\n",
            ),
        ),
    ),
    Mutant(
        name="redirects",
        wrong="The URL redirects to the same path with a slash at its end.",
        scenario="connection-no-redirect",
        changes=(
            Change(
                file="server.py",
                old="application.router.add_post(settings.path, receiver.receive)",
                new="async def redirect(_: web.Request) -> web.Response:\n"
                '            raise web.HTTPTemporaryRedirect(settings.path + "/")\n\n'
                "        application.router.add_post(settings.path, redirect)\n"
                '        application.router.add_post(settings.path + "/", receiver.receive)',
            ),
        ),
    ),
    Mutant(
        name="answers-late",
        wrong="BALANCE takes longer than Predictu waits.",
        scenario="connection-answer-time",
        timeout_s=0.5,
        changes=(
            before(
                _RECEIVER,
                "        if fault is Fault.STALL_BEFORE_APPLY:\n",
                '        if verification.names.method == "BALANCE":\n            await asyncio.sleep(0.6)\n',
            ),
        ),
    ),
)
