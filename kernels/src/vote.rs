//! Who is in the minority.

use std::collections::BTreeMap;

/// Outcome of a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    /// All agree, or there are fewer than two votes.
    Unanimous,
    /// More than half agree: indices of the others, ascending.
    Minority(Vec<usize>),
    /// No word has more than half of the votes: nobody can be named. Number of different words.
    Split(usize),
}

/// Compares equal-ranking votes: more than half makes a majority, its dissenters are the minority.
///
/// * `words`: one word a voter, any order.
/// * Returns indices into `words`; the same whatever the order of equal voters. Exact.
///
/// Cost: `words` log `different words` comparisons, and memory for the different ones.
#[must_use]
pub fn vote<T: Ord>(words: &[T]) -> Vote {
    let mut counts: BTreeMap<&T, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    if counts.len() < 2 {
        return Vote::Unanimous;
    }
    let winner = counts.iter().find(|(_, count)| **count * 2 > words.len());
    match winner {
        Some((winner, _)) => Vote::Minority((0..words.len()).filter(|index| words[*index] != **winner).collect()),
        None => Vote::Split(counts.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_who_differs_is_the_minority() {
        assert_eq!(vote(&["a", "a", "b", "a"]), Vote::Minority(vec![2]));
    }

    #[test]
    fn agreement_names_nobody_and_a_tie_names_nobody() {
        assert_eq!(vote(&["a", "a"]), Vote::Unanimous);
        assert_eq!(vote::<&str>(&[]), Vote::Unanimous);
        assert_eq!(vote(&["a", "b"]), Vote::Split(2));
        assert_eq!(vote(&["a", "a", "b", "b", "c"]), Vote::Split(3));
    }
}
