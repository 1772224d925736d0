-- The floor of retention, and the legal holds of an operator.
select coalesce((select f.months from predictu_dispatch.retention_floor f limit 1), 24) as floor_months,
       (select jsonb_agg(jsonb_build_object('operator_id', l.operator_id, 'bet_id', l.bet_id, 'reason', l.reason,
                                            'placed_at', l.placed_at) order by l.placed_at)
          from predictu_dispatch.legal_hold l where l.lifted_at is null and ($1::text is null or l.operator_id = $1))::text
           as holds
