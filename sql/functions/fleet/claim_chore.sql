-- Returns true to one daemon per interval: that daemon does the chore for all. Other daemons get
-- false, at once. The chores are partitions, reap, backlog, seal, cosign and reconciliation. The
-- claim counts when it commits. If the daemon is killed before the chore is done, another one gets
-- the chore at the next interval; so a chore must be safe to repeat and to skip once, and its
-- interval is the longest delay that a crash may cause. Deadlines are no chore: every daemon ends
-- overdue callbacks. Raises PD003.
create or replace function predictu_dispatch.claim_chore(chore text, every_s double precision, instance text)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    period interval := every_s * interval '1 second';
begin
    if every_s is null or every_s not between 0 and 86400 then
        perform predictu_dispatch.refuse_params('claim_chore',
            format('every_s is %s', coalesce(every_s::text, 'NULL')), 'Give 0 to 86400 seconds.');
    elsif not exists (select from predictu_dispatch.maintenance_chore m where m.chore = claim_chore.chore) then
        perform predictu_dispatch.refuse_params('claim_chore',
            format('unknown chore %s', coalesce(quote_literal(left(chore, 80)), 'NULL')),
            'The chores are partitions, reap, backlog, seal, cosign and reconciliation.');
    end if;
    update predictu_dispatch.maintenance_chore m
       set due_at = clock_timestamp() + period, claimed_by = claim_chore.instance, claimed_at = clock_timestamp()
      from (select c.chore
              from predictu_dispatch.maintenance_chore c
             where c.chore = claim_chore.chore
               -- Later than an interval from now means that the interval or the clock was set back.
               and (c.due_at <= clock_timestamp() or c.due_at > clock_timestamp() + period)
               for no key update skip locked) due
     where m.chore = due.chore;
    return found;
end $$;

revoke all on function predictu_dispatch.claim_chore from public;
grant execute on function predictu_dispatch.claim_chore to predictu_dispatcher;
