-- How many due callbacks go before one: those of its own lane that were due earlier, and where the rate is limited the interactive
-- ones as well. Counted no further than needed, so that a long backlog costs nothing.
-- $1 operator_id; $2 lane; $3 due_at; $4 count at most so many
select (select count(*) from (
           select from predictu_dispatch.callback c
            where c.operator_id = $1 and c.lane = $2 and c.state = 'ready' and c.due_at < least($3, now()) limit $4) lane) as in_lane,
       (select count(*) from (
           select from predictu_dispatch.callback c
            where $2 <> 'interactive' and c.operator_id = $1 and c.lane = 'interactive' and c.state = 'ready' and c.due_at <= now()
            limit $4) interactive) as interactive
