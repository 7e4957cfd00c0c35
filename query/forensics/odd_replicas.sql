-- Which ranks held other weights, optimizer states or gradients than their replicas, and from which step on?
with compared as (
  select d.run, coalesce(d.attempt, 0) as attempt, d.step, d.kind, d.name,
    fingerprint_diff(cast(d.rank as text), d.digest) as odd
  from digests d
  left join ranks r on r.run = d.run and r.rank = d.rank and coalesce(r.attempt, 0) = coalesce(d.attempt, 0)
  where d.kind in ('weight', 'optimizer', 'gradient')
  group by d.run, coalesce(d.attempt, 0), d.step, d.kind, d.name, d."group", r.tp, r.pp, r.ep, r.cp
), named as (
  select run, attempt, step, kind, name, unnest(odd) as rank from compared
)
select run, attempt, cast(rank as bigint) as rank, kind, min(step) as first_step, max(step) as last_step,
  count(distinct name) as names, count(*) as times
from named
group by run, attempt, rank, kind
order by first_step, run, attempt, rank, kind
limit 200
