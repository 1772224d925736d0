"""Every row of the audit is in its operator's log, once, whatever happens meanwhile."""

from tests.support.harness import Harness
from tests.support.postgres import Database
from tests.support.sealing import check_logs, insert_attempts, open_sealer


async def test_every_row_is_sealed_once(harness: Harness, database: Database) -> None:
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        assert await check_logs(harness.owner) == {"op_abc123": 1, "op_off": 1}
        for count in (1, 254, 1, 300, 700):
            await insert_attempts(harness.owner, count)
            await insert_attempts(harness.owner, 3, "op_off")
            await sealer.seal_all()
            await sealer.seal_all()
        assert await check_logs(harness.owner) == {"op_abc123": 1257, "op_off": 16}
