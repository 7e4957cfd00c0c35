//! Collectives: who comes when, and how long everybody waits.

use crate::cluster::Group;
use crate::fault::is_hit;
use crate::moment::Moment;
use crate::run::nanoseconds;
use crate::timing::transfer_s;
use crate::{Axis, FaultKind, Scenario};

/// One call of a communicator: it ends for all members when the last one has come and the bytes are through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Exchange {
    /// When it ends; `None` = never.
    pub(crate) end_ns: Option<i64>,
}

impl Exchange {
    /// * `arrivals`: when each rank of the run enters its call, in nanoseconds.
    pub(crate) fn of(scenario: &Scenario, moment: Moment, group: &Group, arrivals: &[i64]) -> Self {
        let arrival = |rank: &u32| arrivals[*rank as usize];
        let last_ns = group.members.iter().map(arrival).max().unwrap_or(moment.now_ns);
        let is_missing = |rank: &u32| is_hit(&scenario.faults, FaultKind::Hang, moment, *rank);
        let is_hung = group.axis == Axis::Dp && group.members.iter().any(is_missing);
        let transfer_s = transfer_s(scenario, moment, &group.members, group.axis.transfer());
        Self { end_ns: (!is_hung).then_some(last_ns + nanoseconds(transfer_s)) }
    }
}
