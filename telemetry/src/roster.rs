//! Who is in an attempt: where each rank runs, what it computes, which communicators it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Rank;

/// What a rank computes: ranks of one role do equal work and are each other's peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Role {
    /// Pipeline stage.
    pub pp: Option<u32>,
    /// Expert-parallel index.
    pub ep: Option<u32>,
    /// Context-parallel index.
    pub cp: Option<u32>,
    /// Tensor-parallel index.
    pub tp: Option<u32>,
}

/// One row of the table `ranks`: where one rank runs and what it computes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Host name.
    pub node: Option<String>,
    /// GPU UUID.
    pub device: Option<String>,
    /// Index of the rank on its node.
    pub local_rank: Option<u32>,
    /// Data-parallel index.
    pub dp: Option<u32>,
    /// The role inside the model-parallel grid.
    pub role: Role,
}

/// The ranks of one attempt, as told by the table `ranks`; empty when it was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Placement of each rank told.
    pub placements: BTreeMap<Rank, Placement>,
}

impl Roster {
    /// True when the table `ranks` told of this attempt.
    #[must_use]
    pub fn is_told(&self) -> bool {
        !self.placements.is_empty()
    }

    /// The host a rank runs on, if told.
    #[must_use]
    pub fn node(&self, rank: Rank) -> Option<&str> {
        self.placements.get(&rank)?.node.as_deref()
    }

    /// Groups of column indices whose ranks are peers: one role each where roles are told, all columns otherwise.
    ///
    /// * `ranks`: labels of the columns, ascending.
    /// * Returns groups in the order of their role; a rank that a given roster does not list is in none.
    #[must_use]
    pub fn peer_groups(&self, ranks: &[Rank]) -> Vec<Vec<usize>> {
        if !self.is_told() {
            return vec![(0..ranks.len()).collect()];
        }
        let mut groups: BTreeMap<Role, Vec<usize>> = BTreeMap::new();
        for (column, rank) in ranks.iter().enumerate() {
            if let Some(placement) = self.placements.get(rank) {
                groups.entry(placement.role).or_default().push(column);
            }
        }
        groups.into_values().collect()
    }
}

/// The members of each communicator of an attempt, as told by the table `groups`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Communicators {
    /// Members by name of the communicator.
    pub members: BTreeMap<String, BTreeSet<Rank>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_one_role_are_peers_and_an_unlisted_rank_has_none() {
        let mut roster = Roster::default();
        for (rank, stage) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
            let role = Role { pp: Some(stage), ..Role::default() };
            roster.placements.insert(Rank(rank), Placement { role, ..Placement::default() });
        }
        let ranks = [0, 1, 2, 3, 4].map(Rank);
        assert_eq!(roster.peer_groups(&ranks), [vec![0, 1], vec![2, 3]]);
        assert_eq!(Roster::default().peer_groups(&ranks), [vec![0, 1, 2, 3, 4]]);
    }
}
