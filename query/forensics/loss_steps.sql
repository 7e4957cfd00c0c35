-- At which steps did the loss of each run change its level or its spread?
with found as (
  select run, coalesce(attempt, 0) as attempt, unnest(change_points(step, value)) as change
  from samples
  where metric = 'loss'
  group by run, coalesce(attempt, 0)
)
select run, attempt, change['step'] as step, round(change['probability'], 3) as probability
from found
order by run, attempt, step
