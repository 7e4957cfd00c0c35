-- How fast was each communicator, as bus bandwidth, and how much slower were its slowest calls?
with members as (
  select run, attempt, comm, count(distinct rank) as ranks from collectives group by run, attempt, comm
), calls as (
  -- The rank that arrives last waits for nobody: its time is that of the transfer.
  select run, attempt, comm, op, seq, max(bytes) as bytes,
    min(cast("end" as bigint) - cast(start as bigint)) / 1e9 as seconds
  from collectives
  where "end" > start and bytes > 0
  group by run, attempt, comm, op, seq
), speeds as (
  select c.run, c.comm, c.op, busbw(c.op, c.bytes, c.seconds, m.ranks) as bytes_per_s
  from calls c join members m on c.run = m.run and coalesce(c.attempt, 0) = coalesce(m.attempt, 0) and c.comm = m.comm
)
select run, comm, op, count(*) as calls,
  round(exact_quantile(bytes_per_s, 0.5) / 1e9, 3) as median_gb_per_s,
  round(exact_quantile(bytes_per_s, 0.01) / 1e9, 3) as slowest_gb_per_s
from speeds
where bytes_per_s is not null
group by run, comm, op
order by median_gb_per_s, run, comm, op
limit 50
