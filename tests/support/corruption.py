"""Real corruption of one row: its TOASTed value loses its chunks, or its page is overwritten."""

import asyncio
import json
import secrets
import uuid
from pathlib import Path
from typing import Any

import asyncpg

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.daemons import until
from tests.support.harness import Connection, connected

_PAGE_BYTES = 8192

LARGE = {"note": secrets.token_hex(6000)}
"""Params with this are stored out of line, also compressed."""


async def lose_chunks(owner: Connection, request_id: uuid.UUID) -> None:
    """Deletes the chunks of this callback's params, as a lost page of the TOAST table would.

    Reading the params then raises XX000 or XX001. Needs a superuser.
    """
    toast = await owner.fetchval(
        "select reltoastrelid::regclass::text from pg_class where oid = 'predictu_dispatch.callback'::regclass"
    )
    chunk_id = await owner.fetchval(
        "select pg_column_toast_chunk_id(params) from predictu_dispatch.callback where request_id = $1", request_id
    )
    assert chunk_id is not None, "the params are not stored out of line"
    kind = "update pg_class set relkind = $1 where oid = $2::text::regclass"
    async with owner.transaction():
        await owner.execute("set local allow_system_table_mods = on")
        await owner.execute(kind, b"r", toast)
        await owner.execute(f"delete from {toast} where chunk_id = $1", chunk_id)  # noqa: S608 - a name of the catalogue
        await owner.execute(kind, b"t", toast)

    async def is_lost() -> bool:
        # Reading finds the chunks until they are removed. VACUUM leaves them while another session
        # has a snapshot that saw them, such as that of an analyze, or while a page is written.
        await owner.execute(f"vacuum {toast}")
        try:
            await owner.fetchval(
                "select params::text from predictu_dispatch.callback where request_id = $1", request_id
            )
        except (asyncpg.InternalServerError, asyncpg.DataCorruptedError):
            return True
        return False

    await until("the chunks are removed", is_lost)


def large(params: Any) -> str:
    return json.dumps({**params, **LARGE})


async def overwrite_page(embedded: EmbeddedPostgres, dsn: str, table: str, where: str) -> int:
    """Overwrites the page of the first such row on disk, as a faulty disk would.

    Restarts the server, which ends every connection. Returns the page's number of rows; reading one
    of them then raises XX001.
    """
    async with connected(dsn, 1) as [owner]:
        page = f"(select (ctid::text::point)[0]::bigint from {table} where {where} limit 1)"  # noqa: S608 - as below
        found = await owner.fetchrow(
            f"select {page}, (select count(*) from {table} where (ctid::text::point)[0]::bigint = {page}),"  # noqa: S608 - of the test
            f" current_setting('data_directory') || '/' || pg_relation_filepath('{table}')"
        )
        assert found is not None
        number, rows, file = found
        await owner.execute("checkpoint")
    await asyncio.to_thread(embedded.halt)
    await asyncio.to_thread(_overwrite, Path(file), number)
    await asyncio.to_thread(embedded.restart)
    return int(rows)


def _overwrite(file: Path, page: int) -> None:
    with file.open("r+b") as pages:
        pages.seek(page * _PAGE_BYTES)
        pages.write(secrets.token_bytes(_PAGE_BYTES))
