-- Records which operators this daemon cannot connect to; returns whether other daemons can.
-- $1 instance; $2 the operators that it cannot connect to; $3 the operators to return
select operator_id, connected, unconnected from predictu_dispatch.report_reach($1, $2, $3)
