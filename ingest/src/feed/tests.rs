//! Rows go into a feed nearly in order, and come out in order.

use super::*;

fn sample(time: Option<i64>, step: u64) -> SampleOut<'static> {
    SampleOut { run: "r", attempt: 0, rank: Some(0), step: Some(step), time, metric: "loss", value: 1.0 }
}

fn times(part: &LogPart) -> Vec<i64> {
    part.rows.records().map(|record| record.log_time).collect()
}

fn feed_of(times: &[i64]) -> Feed {
    let mut feed = Feed::new(80);
    for time in times {
        RowSink::sample(&mut feed, &sample(Some(*time), 0)).expect("a feed takes every row");
    }
    feed
}

#[test]
fn rows_within_the_slack_come_out_in_the_order_of_their_times() {
    let mut feed = feed_of(&[100, 180, 120, 30]);
    assert_eq!(times(&feed.release()), [30], "100 is 80 younger than the newest: it may still be overtaken");
    RowSink::sample(&mut feed, &sample(Some(101), 0)).expect("a feed takes every row");
    RowSink::sample(&mut feed, &sample(Some(400), 0)).expect("a feed takes every row");
    assert_eq!(times(&feed.release()), [100, 101, 120, 180]);
    assert_eq!((feed.late(), times(&feed.finish())), (0, vec![400]));
}

#[test]
fn a_late_row_and_one_without_a_time_stand_where_the_log_is() {
    let mut feed = feed_of(&[100, 400]);
    assert_eq!(times(&feed.release()), [100]);
    RowSink::sample(&mut feed, &sample(Some(90), 0)).expect("a feed takes every row");
    RowSink::sample(&mut feed, &sample(None, 0)).expect("a feed takes every row");
    assert_eq!(feed.late(), 1);
    assert_eq!(times(&feed.finish()), [320, 400, 400]);
}

#[test]
fn texts_ranks_and_communicators_go_out_once_and_an_attempt_without_ranks_has_those_before() {
    let mut feed = feed_of(&[100, 400]);
    let (run, attempt) = ("r", 0);
    let blank = PlacementOut {
        run,
        attempt,
        rank: 0,
        node: Some("n0"),
        device: None,
        local_rank: None,
        dp: None,
        tp: None,
        pp: None,
        ep: None,
        cp: None,
    };
    feed.placement(&blank).expect("a feed takes every row");
    feed.member(&MemberOut { run, attempt, comm: "dp", rank: 0 }).expect("a feed takes every row");
    let first = feed.release();
    let texts: Vec<&str> = first.texts.iter().map(AsRef::as_ref).collect();
    assert_eq!(texts, ["loss"]);
    assert_eq!(first.membership.rosters[&0].node(Rank(0)), Some("n0"));
    assert_eq!(first.membership.communicators[&0].members.len(), 1);
    RowSink::sample(&mut feed, &SampleOut { attempt: 1, ..sample(Some(410), 1) }).expect("a feed takes every row");
    let second = feed.finish();
    assert!(second.texts.is_empty() && !second.membership.rosters.contains_key(&0));
    assert_eq!(second.membership.rosters[&1], first.membership.rosters[&0]);
    assert!(second.membership.communicators[&1].members.is_empty());
}
