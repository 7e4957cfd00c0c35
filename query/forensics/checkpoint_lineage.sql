-- Which runs loaded a checkpoint with the digest $digest, or one derived from it within three generations?
with loads as (
  select distinct run, digest, min(step) as step from digests where kind = 'checkpoint_loaded' group by run, digest
), saves as (
  select distinct run, digest, min(step) as step from digests where kind = 'checkpoint_saved' group by run, digest
), first as (
  select run, digest, step, 1 as generation from loads where digest = $digest
), second as (
  select l.run, l.digest, l.step, 2 as generation
  from first p join saves s on s.run = p.run and coalesce(s.step, 0) >= coalesce(p.step, 0)
  join loads l on l.digest = s.digest and l.digest <> p.digest
), third as (
  select l.run, l.digest, l.step, 3 as generation
  from second p join saves s on s.run = p.run and coalesce(s.step, 0) >= coalesce(p.step, 0)
  join loads l on l.digest = s.digest and l.digest <> p.digest
), found as (
  select * from first union all select * from second union all select * from third
)
select run, min(generation) as generation, min(step) as first_step, count(distinct digest) as checkpoints
from found
group by run
order by generation, run
