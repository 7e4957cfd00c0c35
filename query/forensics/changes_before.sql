-- What changed in the hour before each incident began, in its run or in no run's name?
select i.id as incident, i.kind, e.time,
  round((cast(e.time as bigint) - cast(i.started_at as bigint)) / 1e9, 1) as lag_s,
  e.source, e.kind as change, e.actor, e.node, e.rank, e.subject
from incidents i
join events e on e.time <= i.started_at and e.time >= i.started_at - interval '1 hour'
where (e.run is null or e.run = i.run)
  and e.kind not in ('run_start', 'run_end', 'pause_begin', 'pause_end', 'checkpoint', 'ack', 'annotate', 'silence')
order by i.started_at, i.id, e.time desc
limit 200
