//! Where ranks lie: indices, hosts, communicators.

use crate::random::{Random, Stream};
use crate::{Axis, Cluster, Scenario};

/// Share of the step that the transfer of a communicator takes when nobody comes late.
const DP_TRANSFER: f64 = 0.03;
const TP_TRANSFER: f64 = 0.01;
const PP_TRANSFER: f64 = 0.005;
/// Payload of one call of a communicator.
const DP_BYTES: u64 = 1 << 30;
const TP_BYTES: u64 = 1 << 26;
const PP_BYTES: u64 = 1 << 24;

/// Where one rank lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dp: u32,
    pub(crate) tp: u32,
    pub(crate) pp: u32,
    /// The part of the model it holds: ranks of one shard are replicas.
    pub(crate) shard: u32,
    pub(crate) node: u32,
    pub(crate) local_rank: u32,
    /// What its node's clock is ahead.
    pub(crate) clock_ns: i64,
}

/// One communicator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) axis: Axis,
    pub(crate) members: Vec<u32>,
}

/// All ranks, and the communicators between them.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) places: Vec<Place>,
    pub(crate) groups: Vec<Group>,
    /// Nodes so far, replaced ones among them.
    nodes: u32,
}

impl Layout {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let cluster = &scenario.cluster;
        let places: Vec<Place> = (0..cluster.ranks()).map(|rank| place_of(scenario, rank)).collect();
        let groups = cluster.communicators.iter().flat_map(|axis| groups_along(*axis, cluster, &places));
        Self { groups: groups.collect(), nodes: cluster.ranks().div_ceil(cluster.ranks_per_node), places }
    }

    /// Puts a spare host in the place of one.
    pub(crate) fn replace(&mut self, scenario: &Scenario, node: u32) {
        let spare = self.nodes;
        self.nodes += 1;
        for place in self.places.iter_mut().filter(|place| place.node == node) {
            (place.node, place.clock_ns) = (spare, clock_ns(scenario, spare));
        }
    }
}

impl Axis {
    /// The operation of its communicators, as NCCL names it.
    pub(crate) fn op(self) -> &'static str {
        match self {
            Self::Dp | Self::Tp => "all_reduce",
            Self::Pp => "all_gather",
        }
    }

    /// Payload of one call.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Dp => DP_BYTES,
            Self::Tp => TP_BYTES,
            Self::Pp => PP_BYTES,
        }
    }

    /// Share of the step that one transfer takes.
    pub(crate) fn transfer(self) -> f64 {
        match self {
            Self::Dp => DP_TRANSFER,
            Self::Tp => TP_TRANSFER,
            Self::Pp => PP_TRANSFER,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Dp => "dp",
            Self::Tp => "tp",
            Self::Pp => "pp",
        }
    }
}

/// The communicators of ranks that differ in one index alone.
fn groups_along(axis: Axis, cluster: &Cluster, places: &[Place]) -> Vec<Group> {
    let number = |place: &Place| match axis {
        Axis::Dp => place.pp * cluster.tp + place.tp,
        Axis::Tp => place.pp * cluster.dp + place.dp,
        Axis::Pp => place.dp * cluster.tp + place.tp,
    };
    let count = places.iter().map(number).max().map_or(0, |last| last + 1);
    let empty = |number: u32| Group { name: format!("{}/{number}", axis.word()), axis, members: Vec::new() };
    let mut groups: Vec<Group> = (0..count).map(empty).collect();
    for (rank, place) in (0_u32..).zip(places) {
        groups[number(place) as usize].members.push(rank);
    }
    groups
}

fn place_of(scenario: &Scenario, rank: u32) -> Place {
    let Cluster { dp: width, tp: tensor, ranks_per_node, .. } = scenario.cluster;
    let (tp, dp, pp) = (rank % tensor, scenario.cluster.dp_of(rank), rank / (tensor * width));
    let (node, shard) = (rank / ranks_per_node, pp * tensor + tp);
    Place { dp, tp, pp, shard, node, local_rank: rank % ranks_per_node, clock_ns: clock_ns(scenario, node) }
}

fn clock_ns(scenario: &Scenario, node: u32) -> i64 {
    let random = Random { seed: scenario.seed };
    (scenario.noise.clock_skew_s * random.normal(Stream::Clock, node, 0) * 1e9) as i64
}

/// Name of a host.
pub(crate) fn node_name(node: u32) -> String {
    format!("n{node:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (Scenario, Layout) {
        let text =
            "run = 'a'\nseed = 1\nsteps = 10\n[cluster]\ndp = 4\ntp = 2\npp = 3\ncommunicators = ['dp', 'tp', 'pp']";
        let scenario = Scenario::from_toml(text).expect("the scenario is right");
        let layout = Layout::of(&scenario);
        (scenario, layout)
    }

    #[test]
    fn ranks_of_one_communicator_differ_in_one_index_alone() {
        let (_, layout) = layout();
        assert_eq!((layout.places.len(), layout.groups.len()), (24, 6 + 12 + 8));
        let members = |name: &str| &layout.groups.iter().find(|group| group.name == name).expect(name).members;
        assert_eq!(members("dp/1"), &[1, 3, 5, 7]);
        assert_eq!(members("tp/5"), &[10, 11]);
        assert_eq!(members("pp/3"), &[3, 11, 19]);
        assert_eq!((layout.places[23].pp, layout.places[23].node, layout.places[23].local_rank), (2, 2, 7));
    }

    #[test]
    fn a_spare_host_takes_the_ranks_of_the_one_it_replaces() {
        let (scenario, mut layout) = layout();
        layout.replace(&scenario, 1);
        layout.replace(&scenario, 3);
        let nodes: Vec<u32> = layout.places.iter().map(|place| place.node).collect();
        assert_eq!((nodes[7], nodes[8], nodes[15], nodes[16]), (0, 3 + 1, 4, 2));
    }
}
