//! What becomes of measurements.

/// The value below which so large a share of the values lies. Sorts them.
///
/// # Panics
/// Without values.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    assert!(!values.is_empty(), "a quantile needs values");
    values.sort_by(f64::total_cmp);
    let at = (share * values.len() as f64).ceil() as usize;
    values[at.saturating_sub(1).min(values.len() - 1)]
}

/// The middle one, or the lower of the two in the middle.
pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}
