-- Which ranks arrived last at their collectives most often in the last 30 days, and how long did the others wait?
with calls as (
  select run, attempt, comm, seq, rank, cast(start as bigint) as arrived,
    row_number() over (partition by run, attempt, comm, seq order by start desc, rank) as place,
    cast(max(start) over (partition by run, attempt, comm, seq) as bigint) as last,
    cast(min(start) over (partition by run, attempt, comm, seq) as bigint) as first
  from collectives
  where start >= (select max(start) from collectives) - interval '30 days'
)
select run, rank, count(*) as times_last,
  round(sum(last - first) / 1e9, 3) as longest_wait_s
from calls
where place = 1 and last > first
group by run, rank
order by times_last desc, longest_wait_s desc, run, rank
limit 20
