-- Which ranks were the slowest at their own work, at how many steps, and by how much of the median?
with steps as (
  select run, coalesce(attempt, 0) as attempt, metric, step, exact_quantile(value, 0.5) as median_s,
    topk_per(cast(rank as text), value, 1) as slowest
  from samples
  where metric in ('step_time_s', 'forward_time_s', 'backward_time_s', 'optimizer_time_s') and rank is not null
  group by run, coalesce(attempt, 0), metric, step
), first as (
  select run, attempt, metric, median_s, unnest(slowest) as worst from steps
)
select run, attempt, metric, cast(worst['label'] as bigint) as rank, count(*) as steps_slowest,
  round(exact_quantile(worst['value'] / median_s, 0.5), 3) as median_ratio
from first
-- Where all ranks wait for each other, all have one step time, and none is slowest.
where median_s > 0 and worst['value'] > median_s
group by run, attempt, metric, worst['label']
order by steps_slowest desc, run, attempt, metric, rank
limit 20
