-- An operator and the last attempt of its last PING.
-- $1 operator_id
select o.enabled, o.paused_at is not null as is_paused, c.state as ping_state,
       a.key_id as ping_key_id, a.instance as ping_instance
  from predictu_dispatch.operator o
  left join predictu_dispatch.callback c on c.operator_id = o.operator_id and c.request_id = o.ping_request_id
  left join lateral (
      select a.key_id, a.instance
        from predictu_dispatch.attempt a
       where a.operator_id = o.operator_id and a.request_id = o.ping_request_id and a.verdict <> 'late'
       order by a.attempt desc
       limit 1
  ) a on true
 where o.operator_id = $1
