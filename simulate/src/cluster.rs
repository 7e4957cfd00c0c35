//! Where ranks lie: indices, hosts, communicators.

use crate::random::{Random, Stream};
use crate::{Cluster, Scenario};

/// Where one rank lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dp: u32,
    pub(crate) tp: u32,
    pub(crate) pp: u32,
    /// Index of its data-parallel communicator.
    pub(crate) group: usize,
    pub(crate) node: u32,
    pub(crate) local_rank: u32,
    /// What its node's clock is ahead.
    pub(crate) clock_ns: i64,
}

/// All ranks, and the data-parallel communicators between them.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) places: Vec<Place>,
    /// Name and members of each communicator.
    pub(crate) groups: Vec<(String, Vec<u32>)>,
}

impl Layout {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let cluster = &scenario.cluster;
        let random = Random { seed: scenario.seed };
        let group_count = (cluster.tp * cluster.pp) as usize;
        let name = |group: usize| format!("dp/{group}");
        let mut groups: Vec<(String, Vec<u32>)> = (0..group_count).map(|group| (name(group), Vec::new())).collect();
        let mut places = Vec::with_capacity(cluster.ranks() as usize);
        for rank in 0..cluster.ranks() {
            let mut place = place_of(cluster, rank);
            let clock_s = scenario.noise.clock_skew_s * random.normal(Stream::Clock, place.node, 0);
            place.clock_ns = (clock_s * 1e9) as i64;
            groups[place.group].1.push(rank);
            places.push(place);
        }
        Self { places, groups }
    }
}

fn place_of(cluster: &Cluster, rank: u32) -> Place {
    let Cluster { dp: width, tp: tensor, ranks_per_node, .. } = *cluster;
    let (tp, dp, pp) = (rank % tensor, rank / tensor % width, rank / (tensor * width));
    let group = (pp * tensor + tp) as usize;
    Place { dp, tp, pp, group, node: rank / ranks_per_node, local_rank: rank % ranks_per_node, clock_ns: 0 }
}

/// Name of a host.
pub(crate) fn node_name(node: u32) -> String {
    format!("n{node:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_one_communicator_differ_in_their_data_parallel_index_alone() {
        let text = "run = 'a'\nseed = 1\nsteps = 10\n[cluster]\ndp = 4\ntp = 2\npp = 3";
        let layout = Layout::of(&Scenario::from_toml(text).expect("the scenario is right"));
        assert_eq!((layout.places.len(), layout.groups.len()), (24, 6));
        assert_eq!(layout.groups[1].1, [1, 3, 5, 7]);
        for (_, members) in &layout.groups {
            let indices: Vec<u32> = members.iter().map(|rank| layout.places[*rank as usize].dp).collect();
            assert_eq!(indices, [0, 1, 2, 3]);
        }
        assert_eq!((layout.places[23].pp, layout.places[23].node, layout.places[23].local_rank), (2, 2, 7));
    }
}
