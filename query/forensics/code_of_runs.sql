-- Which code, configuration and environment did each run have, and which ranks had another than the rest?
select run, coalesce(attempt, 0) as attempt, kind, name, count(distinct digest) as versions,
  count(distinct rank) as ranks, fingerprint_diff(cast(rank as text), digest) as odd_ranks
from digests
where kind in ('code', 'config', 'env')
group by run, coalesce(attempt, 0), kind, name
order by versions desc, run, attempt, kind, name
limit 200
