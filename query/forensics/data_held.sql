-- What is held of each run: which tables, how many rows, from when to when, and on how many days?
select run, "table", sum(rows) as rows, sum(parts) as parts, sum(bytes) as bytes,
  count(distinct date) as days, min(first) as first, max(last) as last
from coverage
group by run, "table"
order by run, "table"
