-- Removes lines that repeat another one of the run, and returns how many there are of each source,
-- with the first 1,000: [{"line", "first_source", "first_line"}].
-- $1 operator_id, $2 run_id
select r.source, count(*) as lines,
    jsonb_agg(
        jsonb_build_object('line', r.line, 'first_source', r.first_source, 'first_line', r.first_line) order by r.line
    ) filter (where r.position <= 1000) as first_lines
from (
    select l.source, l.line, l.first_source, l.first_line,
        row_number() over (partition by l.source order by l.line) as position
    from predictu_dispatch.repeated_lines($1, $2) l
) r
group by r.source
order by r.source
