-- compatible_from: 0010
-- A daemon with hundreds of operators says every second that it is alive. Nothing tells the planner how long an array is, so it
-- takes a few operators for granted and compares each one with every other, four times: with 500 that took 60 to 140 ms, and takes
-- 15 to 20 without nested loops.
alter function predictu_dispatch.heartbeat(
    text, uuid, text, integer, text, text[], integer[], integer[], double precision[], integer[], integer[], double precision[]
) set enable_nestloop = off;
alter function predictu_dispatch.heartbeat(
    text, uuid, text, integer, text, text[], integer[], integer[], double precision[], integer[], integer[], double precision[]
) set jit = off;
