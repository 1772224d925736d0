-- Returns the condition, for a statement that purge_audit() builds, under which a row `s` of the
-- audit stays: it is not old ($3 is the cutoff), its callback is still there, or a legal hold stands
-- for its operator or for its bet, which was removed before the hold.
create or replace function predictu_dispatch.needed_rows() returns text
language sql immutable parallel safe
return $condition$(s.started_at >= $3
                or exists (
                    select from predictu_dispatch.callback c
                     where c.operator_id = s.operator_id and c.request_id = s.request_id)
                or exists (
                    select from predictu_dispatch.legal_hold h
                     where h.operator_id = s.operator_id and h.lifted_at is null
                       and (h.bet_id is null or exists (
                           select from predictu_dispatch.bet_tombstone b
                            where b.operator_id = h.operator_id and b.bet_id = h.bet_id
                              and s.request_id in (b.placement_request_id, b.terminal_request_id)))))$condition$;

revoke all on function predictu_dispatch.needed_rows from public;
