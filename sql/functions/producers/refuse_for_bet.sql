-- Raises PD005 for a bet. If retention removed the bet, the message says so instead of the given
-- fault.
create or replace function predictu_dispatch.refuse_for_bet(
    operator_id text, bet_id text, what text, fault text, hint text
) returns void language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
    removed text := (select r.state from predictu_dispatch.bet_tombstone r
                      where r.operator_id = refuse_for_bet.operator_id and r.bet_id = refuse_for_bet.bet_id);
begin
    if removed is not null then
        fault := format('it was %s when retention removed it', removed);
        hint := 'A removed bet is never placed, ended or rolled back again; a new placement needs a new bet_id.';
    end if;
    raise exception using errcode = 'PD005',
        message = format('%s for bet %s of operator %s is refused: %s', what, bet_id, operator_id, fault),
        hint = hint;
end $$;

revoke all on function predictu_dispatch.refuse_for_bet from public;
