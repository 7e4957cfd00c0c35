//! Each saved question on rows that hold one known answer.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::testing::answer_with;

const SECOND: i64 = 1_000_000_000;
/// When the incident of these tests began.
const BEGAN: i64 = 1_766_000_000 * SECOND;

/// The rows of a saved question.
fn ask(name: &str, folder: &Path) -> Vec<Value> {
    let incident = json!({
        "id": "inc_1", "run": "a", "attempt": 0, "kind": "slowdown.rank", "severity": "critical", "state": "open",
        "started_at": BEGAN, "suspects": [{"rank": 3, "share": 1.0}], "summary": "rank 3 is slow",
        "evidence": [{"detector": "straggler", "metric": "step_time_s", "step": 5, "rank": 3,
            "observed": 9.0, "expected": 1.0, "low": 0.9, "high": 1.1, "log10_e": 14.2}],
    });
    let sql = saved_named(name).unwrap().with(&[("digest".to_owned(), "h0".to_owned())]).unwrap();
    let text = answer_with(folder, vec![incident.to_string()], &sql).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn folder(table: &str, rows: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join(format!("{table}.csv")), rows).expect("written");
    dir
}

#[test]
fn every_saved_question_asks_in_words_and_passes_the_gate() {
    let all = saved();
    assert_eq!(all.len(), 12);
    for saved in all {
        let Saved { name, question, .. } = saved;
        assert!(question.ends_with('?') && question.len() > 20, "{name}: {question}");
        let filled = saved.with(&[("digest".to_owned(), "it's".to_owned())]).unwrap();
        assert_eq!(crate::gate::statements(&filled).unwrap().len(), 1, "{name}");
    }
    let told = saved_named("checkpoint_lineage").unwrap().with(&[]).unwrap_err().to_string();
    assert!(told.contains("--param digest="), "{told}");
    assert!(saved_named("loss").unwrap_err().to_string().contains("loss_steps"));
}

#[test]
fn every_saved_question_has_an_empty_answer_where_nothing_is_held() {
    let dir = tempfile::tempdir().expect("a folder");
    for Saved { name, .. } in saved() {
        let rows = ask(name, dir.path());
        assert_eq!(rows.len(), usize::from(name == "figures_behind"), "{name}: {rows:?}");
    }
}

/// Ten all-reduces of four ranks; rank 2 arrives a second after the others, and 1.5 s later all are done.
fn calls() -> tempfile::TempDir {
    let mut rows = "run,rank,comm,seq,op,bytes,start,end\n".to_owned();
    for seq in 0..10_i64 {
        for rank in 0..4 {
            let begin = seq * 10 * SECOND;
            let start = begin + if rank == 2 { SECOND } else { 0 };
            rows += &format!("a,{rank},dp,{seq},all_reduce,1000000000,{start},{}\n", begin + 5 * SECOND / 2);
        }
    }
    folder("collectives", &rows)
}

#[test]
fn the_rank_that_arrives_last_is_named_with_what_it_cost() {
    let rows = ask("arrived_last", calls().path());
    assert_eq!(rows, [json!({"run": "a", "rank": 2, "times_last": 10, "longest_wait_s": 10.0})]);
}

#[test]
fn bandwidth_is_that_of_the_transfer_and_not_of_the_wait() {
    let rows = ask("bandwidth", calls().path());
    // 1 GB in 1.5 s, times 2 (4 - 1) / 4.
    let expected = json!({"run": "a", "comm": "dp", "op": "all_reduce", "calls": 10,
        "median_gb_per_s": 1.0, "slowest_gb_per_s": 1.0});
    assert_eq!(rows, [expected]);
}

#[test]
fn changes_of_the_hour_before_are_told_and_older_ones_are_not() {
    let at = |minutes: i64| BEGAN - minutes * 60 * SECOND;
    let rows = format!(
        "time,source,kind,run,node,subject\n{},sudo,exec,,n02,nvidia-smi\n{},sudo,exec,,n03,old\n{},life,run_start,a,,\n{},sudo,exec,b,n04,other\n{},sudo,exec,a,n05,after\n",
        at(30),
        at(61),
        at(5),
        at(10),
        at(-1)
    );
    let rows = ask("changes_before", folder("events", &rows).path());
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["subject"], &rows[0]["lag_s"]), (&json!("nvidia-smi"), &json!(-1800.0)));
}

#[test]
fn runs_that_descend_from_a_checkpoint_are_found_and_others_are_not() {
    let rows = "run,step,kind,name,digest\n\
        a,100,checkpoint_saved,s,h0\nb,100,checkpoint_loaded,s,h0\nb,200,checkpoint_saved,s,h1\n\
        c,200,checkpoint_loaded,s,h1\nd,100,checkpoint_loaded,s,x0\nd,200,checkpoint_saved,s,x1\n";
    let rows = ask("checkpoint_lineage", folder("digests", rows).path());
    let found: Vec<_> = rows.iter().map(|row| (row["run"].clone(), row["generation"].clone())).collect();
    assert_eq!(found, [(json!("b"), json!(1)), (json!("c"), json!(2))]);
}

#[test]
fn the_rank_with_other_code_is_named() {
    let rows =
        "run,rank,kind,name,digest\na,0,code,train.py,x\na,1,code,train.py,x\na,3,code,train.py,y\na,0,env,e,z\n";
    let rows = ask("code_of_runs", folder("digests", rows).path());
    assert_eq!((&rows[0]["versions"], &rows[0]["odd_ranks"]), (&json!(2), &json!(["3"])));
    assert_eq!((rows.len(), &rows[1]["odd_ranks"]), (2, &json!([])));
}

#[test]
fn figures_are_those_of_the_incident() {
    let rows = ask("figures_behind", tempfile::tempdir().expect("a folder").path());
    let row = &rows[0];
    assert_eq!((&row["incident"], &row["observed"], &row["log10_e"]), (&json!("inc_1"), &json!(9.0), &json!(14.2)));
}

#[test]
fn the_step_at_which_the_loss_changed_is_named() {
    let noise = |at: u64| (at as f64 * 0.618_033_988_749_895).fract() - 0.5;
    let line = |at: u64| format!("a,{at},loss,{}\n", noise(at) * 0.1 + if at < 150 { 2.0 } else { 2.6 });
    let rows = "run,step,metric,value\n".to_owned() + &(0..300).map(line).collect::<String>();
    let rows = ask("loss_steps", folder("samples", &rows).path());
    assert_eq!(rows.iter().map(|row| row["step"].clone()).collect::<Vec<_>>(), [json!(150)]);
}

#[test]
fn the_first_nan_is_named() {
    let rows = "run,rank,step,metric,value\na,2,7,grad_norm,NaN\na,1,8,loss,NaN\na,2,6,grad_norm,1\nb,0,9,loss,inf\n";
    let rows = ask("nonfinite_first", folder("samples", rows).path());
    let expected = json!({"run": "a", "attempt": 0, "step": 7, "metric": "grad_norm", "rank": 2, "value": "NaN"});
    assert_eq!((&rows[0], &rows[1]["value"]), (&expected, &json!("Infinity")));
}

#[test]
fn the_odd_replica_is_named_from_its_first_step_on() {
    let mut rows = "run,rank,step,kind,name,digest\n".to_owned();
    for step in 5..9 {
        for rank in 0..4 {
            let digest = if rank == 1 && step > 5 { "bad".to_owned() } else { format!("good{step}") };
            rows += &format!("a,{rank},{step},weight,layers,{digest}\n");
        }
    }
    let rows = ask("odd_replicas", folder("digests", &rows).path());
    let expected = json!({"run": "a", "attempt": 0, "rank": 1, "kind": "weight", "first_step": 6, "last_step": 8,
        "names": 1, "times": 3});
    assert_eq!(rows, [expected]);
}

#[test]
fn the_rank_that_stands_out_and_the_slowest_rank_are_named() {
    let mut rows = "run,rank,step,metric,value\n".to_owned();
    for step in 0..5 {
        for rank in 0..8 {
            let value = if rank == 3 { 9.0 } else { 1.0 + f64::from(rank) * 0.01 };
            rows += &format!("a,{rank},{step},step_time_s,{value}\n");
        }
    }
    let dir = folder("samples", &rows);
    let outliers = ask("outlier_ranks", dir.path());
    assert_eq!((outliers.len(), &outliers[0]["rank"], &outliers[0]["steps"]), (1, &json!(3), &json!(5)));
    let slowest = ask("slowest_ranks", dir.path());
    assert_eq!((slowest.len(), &slowest[0]["rank"], &slowest[0]["steps_slowest"]), (1, &json!(3), &json!(5)));
}
