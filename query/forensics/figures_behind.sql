-- Which figures stand behind each incident: what was seen, what was expected, and how strong is the evidence?
select v.incident, v.kind, i.severity, v.detector, v.metric, v.step, v.rank,
  v.observed, v.expected, v.low, v.high, v.log10_e, v.note
from verdicts v join incidents i on i.id = v.incident
order by i.started_at, v.incident, v.step, v.rank, v.metric
limit 200
