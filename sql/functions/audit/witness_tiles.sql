-- Returns the hashes of some tiles of a log, from which consistency proofs are made.
create or replace function predictu_dispatch.witness_tiles(operator_id text, levels smallint[], tiles bigint[])
returns table (level smallint, tile bigint, hashes bytea)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select t.level, t.tile, t.hashes
      from unnest(levels, tiles) as w (level, tile)
      join predictu_dispatch.audit_tile t
        on t.operator_id = witness_tiles.operator_id and t.level = w.level and t.tile = w.tile
$$;

revoke all on function predictu_dispatch.witness_tiles from public;
grant execute on function predictu_dispatch.witness_tiles to predictu_dispatcher;
