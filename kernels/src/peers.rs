//! A value against the others of its group.

/// The middle of a group: enough to tell, for each of its members, the median of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Middle {
    below: f32,
    /// The middle value of an odd count; an even count has none.
    center: Option<f32>,
    above: f32,
}

impl Middle {
    /// The middle of at least two values without NaN; `None` of fewer. Reorders its argument.
    ///
    /// Cost: one selection and one pass. The same whatever the order of the values.
    #[must_use]
    pub fn of(values: &mut [f32]) -> Option<Self> {
        if values.len() < 2 {
            return None;
        }
        let half = values.len() / 2;
        let is_odd = values.len() % 2 == 1;
        let (lower, upper, higher) = values.select_nth_unstable_by(half, f32::total_cmp);
        let below = lower.iter().copied().max_by(f32::total_cmp)?;
        if !is_odd {
            return Some(Self { below, center: None, above: *upper });
        }
        let above = higher.iter().copied().min_by(f32::total_cmp)?;
        Some(Self { below, center: Some(*upper), above })
    }

    /// The median of all values; of an even count the mean of the two middle ones.
    #[must_use]
    pub fn median(&self) -> f32 {
        self.center.unwrap_or(0.5 * self.below + 0.5 * self.above)
    }

    /// The median of the others, for a `value` that is one of the group: what is expected of it without its own voice.
    ///
    /// Of `n` values none can be further than `(n - 1) / sqrt(n)` standard deviations from the mean it is part of, so in
    /// a small group only a comparison that leaves the value itself out can convict.
    #[must_use]
    #[inline]
    pub fn without(&self, value: f32) -> f32 {
        match self.center {
            None if value <= self.below => self.above,
            None => self.below,
            Some(center) if value < center => 0.5 * center + 0.5 * self.above,
            Some(center) if value > center => 0.5 * self.below + 0.5 * center,
            Some(_) => 0.5 * self.below + 0.5 * self.above,
        }
    }
}

/// The value below which the fraction `q` (0 to 1) of `values` lies, by selection of the nearest lower one, so that the
/// order of the values changes no bit; `None` of none. Values must not be NaN. Reorders its argument.
#[must_use]
pub fn quantile_in_place(values: &mut [f32], q: f64) -> Option<f32> {
    let last = values.len().checked_sub(1)?;
    let place = (q.clamp(0.0, 1.0) * last as f64) as usize;
    Some(*values.select_nth_unstable_by(place, f32::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted_median(values: &[f32]) -> f32 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f32::total_cmp);
        let half = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[half] } else { 0.5 * sorted[half - 1] + 0.5 * sorted[half] }
    }

    #[test]
    fn one_value_has_no_others() {
        assert_eq!(Middle::of(&mut [1.0]), None);
        assert_eq!(Middle::of(&mut []), None);
        assert_eq!(quantile_in_place(&mut [], 0.5), None);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        assert_eq!(quantile_in_place(&mut [5.0, 1.0, 3.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile_in_place(&mut [5.0, 1.0, 3.0, 2.0], 1.0), Some(5.0));
    }

    proptest! {
        #[test]
        fn the_median_of_the_others_is_what_sorting_the_others_gives(
            values in prop::collection::vec((0_u8..20).prop_map(f32::from), 2..40),
        ) {
            let middle = Middle::of(&mut values.clone()).expect("two or more");
            prop_assert_eq!(middle.median(), sorted_median(&values));
            for (index, value) in values.iter().enumerate() {
                let mut others = values.clone();
                others.remove(index);
                prop_assert_eq!(middle.without(*value), sorted_median(&others));
            }
        }
    }
}
