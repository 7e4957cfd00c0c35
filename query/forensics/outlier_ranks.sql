-- Which ranks stood out from all others, in which metric, at how many steps and by how much?
with judged as (
  select run, coalesce(attempt, 0) as attempt, metric, step, rank, value,
    robust_z(value) over (partition by run, coalesce(attempt, 0), metric, step) as z
  from samples
  where rank is not null
), outside as (
  select * from judged where abs(z) > 8
)
select run, attempt, metric, rank, count(*) as steps, min(step) as first_step, max(step) as last_step,
  round(exact_quantile(z, 0.5), 1) as median_z
from outside
group by run, attempt, metric, rank
having count(*) >= 3
order by steps desc, abs(exact_quantile(z, 0.5)) desc, run, metric, rank
limit 50
