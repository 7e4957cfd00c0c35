-- Which ranks were the slowest of their run, at how many steps, and by how much of the median?
with steps as (
  select run, coalesce(attempt, 0) as attempt, step, exact_quantile(value, 0.5) as median_s,
    topk_per(cast(rank as text), value, 1) as slowest
  from samples
  where metric = 'step_time_s' and rank is not null
  group by run, coalesce(attempt, 0), step
), first as (
  select run, attempt, step, median_s, unnest(slowest) as worst from steps
)
select run, attempt, cast(worst['label'] as bigint) as rank, count(*) as steps_slowest,
  round(exact_quantile(worst['value'] / median_s, 0.5), 3) as median_ratio
from first
where median_s > 0
group by run, attempt, worst['label']
order by steps_slowest desc, run, attempt, rank
limit 20
