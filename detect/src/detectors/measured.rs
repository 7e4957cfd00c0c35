//! A cell beside those of its peers, as they were logged: what every comparison of ranks begins with.

use trainwarden_kernels::Middle;
use trainwarden_telemetry::{Panel, Working};

use crate::Scene;

/// The value of a cell and the median of its peers' in the same row, without its own; nothing where there is no cell.
///
/// * `at`: panel and row.
pub(crate) fn measured((panel, row): (&Panel, usize), column: usize, scene: &Scene) -> Working {
    let Some(value) = panel.value(row, column) else { return Working::default() };
    let working = Working::new(&[]).with("value", value);
    let groups = scene.peer_groups(panel.attempt, &panel.ranks);
    let Some(group) = groups.into_iter().find(|columns| columns.contains(&column)) else { return working };
    let usable = |column: usize| panel.value(row, column).filter(|value| value.is_finite());
    let mut values: Vec<f32> = group.into_iter().filter_map(usable).collect();
    let peers = values.len().saturating_sub(1);
    match Middle::of(&mut values).filter(|_| peers > 0) {
        Some(middle) => working.with("peers_median", middle.without(value)).with("peers", peers),
        None => working,
    }
}
