-- Where did the first NaN or infinity of each run appear: at which step, in which metric, on which rank?
with bad as (
  select run, coalesce(attempt, 0) as attempt, step, metric, rank, value,
    row_number() over (partition by run, coalesce(attempt, 0) order by step, rank, metric) as place
  from samples
  where isnan(value) or value in (cast('Infinity' as double), cast('-Infinity' as double))
)
select run, attempt, step, metric, rank, value from bad where place = 1 order by run, attempt
