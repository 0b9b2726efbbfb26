//! "did you mean": the nearest of the names that would have been right.

/// Longer words are typos of nothing.
const MAX_LENGTH: usize = 64;

/// The candidate that is nearest to `found`, if one is near: a letter in three may differ, case does not count.
pub fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if found.is_empty() || found.len() > MAX_LENGTH {
        return None;
    }
    let found = found.to_lowercase();
    let allowed = (found.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&found, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "; did you mean X?", or nothing.
pub fn hint<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(found, candidates).map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// How many letters must be added, dropped or replaced, or neighbours swapped, to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["window", "return_horizons", "binance-usdm", "off"];

    #[test]
    fn near_misses_find_their_name() {
        for (found, name) in
            [("windwo", "window"), ("Window", "window"), ("return_horizon", "return_horizons"), ("of", "off")]
        {
            assert_eq!(nearest(found, NAMES), Some(name), "{found}");
        }
    }

    #[test]
    fn far_ones_do_not() {
        for found in ["", "x", "wnd", "horizons", &"w".repeat(1000)] {
            assert_eq!(nearest(found, NAMES), None, "{found}");
        }
    }
}
