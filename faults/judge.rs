//! Compares what a job wrote through all faults with what it writes undisturbed.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

/// A record as a reader of committed records gets it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The records of one kind of output, by partition.
pub struct Topic {
    pub kind: &'static str,
    pub partitions: Vec<Vec<Output>>,
}

impl Topic {
    /// Empty where there is no such partition.
    fn log(&self, partition: usize) -> &[Output] {
        self.partitions.get(partition).map_or(&[], Vec::as_slice)
    }
}

/// What the judge found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Records of the undisturbed run.
    pub compared: usize,
    /// Those that are not there.
    pub missing: usize,
    /// Those that are there and should not be.
    pub extra: usize,
    /// Partitions that have the right records in a wrong order.
    pub disordered: usize,
    pub first: Option<Difference>,
}

impl Verdict {
    pub fn differences(&self) -> usize {
        self.missing + self.extra + self.disordered
    }
}

/// The first place in which two logs differ.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub kind: &'static str,
    pub partition: usize,
    /// How many records before this one are the same.
    pub index: usize,
    /// `None`: the undisturbed run has no more.
    pub expected: Option<Output>,
    pub found: Option<Output>,
}

/// Compares topics of the same kinds in the same order.
pub fn compare(expected: &[Topic], found: &[Topic]) -> Verdict {
    let mut verdict = Verdict::default();
    for (expected, found) in expected.iter().zip(found) {
        assert_eq!(expected.kind, found.kind, "topics come in one order");
        for partition in 0..expected.partitions.len().max(found.partitions.len()) {
            compare_logs(
                expected.kind,
                partition,
                expected.log(partition),
                found.log(partition),
                &mut verdict,
            );
        }
    }
    verdict
}

fn compare_logs(
    kind: &'static str,
    partition: usize,
    expected: &[Output],
    found: &[Output],
    verdict: &mut Verdict,
) {
    verdict.compared += expected.len();
    if expected == found {
        return;
    }
    let index = expected.iter().zip(found).take_while(|(one, other)| one == other).count();
    verdict.first.get_or_insert_with(|| Difference {
        kind,
        partition,
        index,
        expected: expected.get(index).cloned(),
        found: found.get(index).cloned(),
    });
    let mut counts = HashMap::<&Output, i64>::new();
    expected.iter().for_each(|output| *counts.entry(output).or_default() += 1);
    found.iter().for_each(|output| *counts.entry(output).or_default() -= 1);
    let missing: i64 = counts.values().filter(|count| **count > 0).sum();
    let extra: i64 = -counts.values().filter(|count| **count < 0).sum::<i64>();
    verdict.missing += missing as usize;
    verdict.extra += extra as usize;
    verdict.disordered += usize::from(missing == 0 && extra == 0);
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} partition {} record {}:", self.kind, self.partition, self.index)?;
        let show = |output: &Option<Output>| output.as_ref().map_or("(the end)".to_owned(), show_output);
        writeln!(f, "  expected {}", show(&self.expected))?;
        write!(f, "  found    {}", show(&self.found))
    }
}

fn show_output(output: &Output) -> String {
    let text = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "null".to_owned(),
    };
    let headers: Vec<String> =
        output.headers.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    format!("key {} headers [{}] value {}", text(&output.key), headers.join(", "), text(&output.value))
}

/// What is wrong with the accounts of the undisturbed run and of the other.
pub fn compare_accounts(expected: &Value, found: &Value) -> Option<String> {
    for (name, account) in [("undisturbed", expected), ("disturbed", found)] {
        if let Some(wrong) = imbalance(account) {
            return Some(format!("the account of the {name} run does not add up: {wrong}"));
        }
    }
    (expected != found).then(|| format!("the accounts differ:\n  expected {expected}\n  found    {found}"))
}

/// Every row has one fate, and the fates add up; so with messages.
fn imbalance(account: &Value) -> Option<String> {
    for (total, fates) in [("rows_in", "rows"), ("messages_in", "messages")] {
        let (Some(total_count), Some(fates_of)) = (account[total].as_i64(), account[fates].as_object())
        else {
            return Some(format!("it has no {total} and {fates}: {account}"));
        };
        let sum: i64 = fates_of.values().filter_map(Value::as_i64).sum();
        if sum != total_count {
            return Some(format!("{total} is {total_count}, the sum of {fates} {sum}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn output(text: &str) -> Output {
        Output {
            key: Some(b"coinbase:BTC-USD".to_vec()),
            value: Some(text.as_bytes().to_vec()),
            headers: vec![("source".to_owned(), Some(b"raw/0/1/0".to_vec()))],
        }
    }

    /// Two partitions; the records of the second are given.
    fn topics(texts: &[&str]) -> Vec<Topic> {
        let second = texts.iter().map(|text| output(text)).collect();
        vec![Topic { kind: "alerts", partitions: vec![vec![output("z")], second] }]
    }

    /// Index of the first difference, then how many records are missing, extra, and logs disordered.
    #[track_caller]
    fn check(found: &[&str], index: usize, counts: (usize, usize, usize)) {
        let verdict = compare(&topics(&["a", "b", "c"]), &topics(found));
        let first = verdict.first.as_ref().map(|first| (first.kind, first.partition, first.index));
        assert_eq!(first, Some(("alerts", 1, index)));
        assert_eq!((verdict.missing, verdict.extra, verdict.disordered), counts);
        assert!(verdict.differences() > 0);
        assert_eq!(verdict.compared, 4);
    }

    #[test]
    fn says_nothing_against_the_same() {
        let verdict = compare(&topics(&["a", "b"]), &topics(&["a", "b"]));
        assert_eq!((verdict.differences(), verdict.first), (0, None));
    }

    #[test]
    fn finds_a_drop() {
        check(&["a", "c"], 1, (1, 0, 0));
    }

    #[test]
    fn finds_a_repeat() {
        check(&["a", "b", "b", "c"], 2, (0, 1, 0));
    }

    #[test]
    fn finds_a_swap() {
        check(&["b", "a", "c"], 0, (0, 0, 1));
    }

    #[test]
    fn finds_a_changed_byte() {
        check(&["a", "b", "d"], 2, (1, 1, 0));
    }

    #[test]
    fn finds_a_missing_tail() {
        check(&["a", "b"], 2, (1, 0, 0));
    }

    #[test]
    fn finds_an_extra_tail() {
        check(&["a", "b", "c", "d"], 3, (0, 1, 0));
    }

    #[test]
    fn finds_a_missing_partition() {
        let mut found = topics(&["a", "b", "c"]);
        found[0].partitions.pop();
        assert_eq!(compare(&topics(&["a", "b", "c"]), &found).missing, 3);
    }

    #[test]
    fn finds_another_key_and_another_header() {
        for change in [
            (|output: &mut Output| output.key = None) as fn(&mut Output),
            |output| output.headers[0].1 = Some(b"raw/0/2/0".to_vec()),
            |output| output.headers.clear(),
            |output| output.value = None,
        ] {
            let mut found = topics(&["a", "b", "c"]);
            change(&mut found[0].partitions[1][1]);
            let verdict = compare(&topics(&["a", "b", "c"]), &found);
            assert_eq!((verdict.missing, verdict.extra), (1, 1));
        }
    }

    #[test]
    fn shows_both_sides_of_a_difference() {
        let verdict = compare(&topics(&["a"]), &topics(&[]));
        let shown = verdict.first.unwrap().to_string();
        assert!(shown.contains("alerts partition 1 record 0"), "{shown}");
        assert!(
            shown.contains("expected key coinbase:BTC-USD headers [source=raw/0/1/0] value a"),
            "{shown}"
        );
        assert!(shown.contains("found    (the end)"), "{shown}");
    }

    #[test]
    fn an_account_adds_up_and_is_the_same() {
        let account = |ticks: i64, late: i64| {
            json!({
                "rows_in": 5, "rows": {"ticks": ticks, "late": late},
                "messages_in": 2, "messages": {"rows": 2},
            })
        };
        assert_eq!(compare_accounts(&account(4, 1), &account(4, 1)), None);
        assert!(compare_accounts(&account(4, 1), &account(3, 2)).unwrap().contains("differ"));
        assert!(compare_accounts(&account(4, 1), &account(4, 2)).unwrap().contains("disturbed run does not"));
        assert!(compare_accounts(&json!({}), &account(4, 1)).unwrap().contains("no rows_in"));
    }
}
