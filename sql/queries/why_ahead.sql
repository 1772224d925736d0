-- How many due callbacks are ahead of one: those of its lane that were due earlier, and the due
-- interactive ones, which a rate limit lets go first. Both counts stop at $4, so a long backlog
-- costs nothing.
-- $1 operator_id; $2 lane; $3 due_at; $4 the count at which to stop
select (select count(*) from (
           select from predictu_dispatch.callback c
            where c.operator_id = $1 and c.lane = $2 and c.state = 'ready' and c.due_at < least($3, now())
            limit $4) lane) as in_lane,
       (select count(*) from (
           select from predictu_dispatch.callback c
            where $2 <> 'interactive' and c.operator_id = $1 and c.lane = 'interactive' and c.state = 'ready'
              and c.due_at <= now()
            limit $4) interactive) as interactive
