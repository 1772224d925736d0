-- Records which operators a daemon cannot connect to, and returns for the named operators how many
-- other daemons serve them, by whether they can connect. `lost` are all operators that this daemon
-- cannot connect to; heartbeat() gives it no share of them while another daemon can connect.
create or replace function predictu_dispatch.report_reach(instance text, lost text[], operator_ids text[])
returns table (operator_id text, connected bigint, unconnected bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
#variable_conflict use_column
begin
    -- heartbeat() writes the same rows.
    perform predictu_dispatch.take_lock('heartbeat', waits => true);
    update predictu_dispatch.share s
       set unreachable_since = case when s.operator_id = any (lost) then clock_timestamp() end
     where s.instance = report_reach.instance and (s.unreachable_since is not null) <> (s.operator_id = any (lost));
    return query
    select named.operator_id, count(d.instance) filter (where s.unreachable_since is null),
           count(d.instance) filter (where s.unreachable_since is not null)
      from unnest(operator_ids) as named (operator_id)
      left join predictu_dispatch.share s on s.operator_id = named.operator_id and s.instance <> report_reach.instance
      left join predictu_dispatch.daemon d
        on d.instance = s.instance
       and d.seen_at between clock_timestamp() - predictu_dispatch.heartbeat_timeout()
                         and clock_timestamp() + interval '1 second'
     group by named.operator_id;
end $$;

revoke all on function predictu_dispatch.report_reach from public;
grant execute on function predictu_dispatch.report_reach to predictu_dispatcher;
