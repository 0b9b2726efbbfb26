//! Settings that are not those of before: refused, or adopted from a place of the input on.

use serde_json::Value;

use super::{Kept, assert_ends, create, go_on, values};

use crate::kafka::job::{Job, assert_each_once, send_quotes, source, sources};
use crate::support::kafka::brokers;
use crate::support::{Files, finish};

const PARTITIONS: i32 = 2;

/// A baseline that scores every row: the bundled one has none for windows that are not full.
const BASELINE: &str = "name: plain\nversion: \"1\"\nkind: baseline\nfeatures:\n  - name: volatility_z\n    null: 0\nthreshold: 3\ndecision_threshold: 0.5\nhorizon: 60s\n";

/// A job that has begun with the variant `ml`, and the files of its configuration.
fn with_baseline(brokers: &str, test: &str) -> (Kept, Files) {
    let files = Files::new();
    let baseline = files.add("baseline.yaml", BASELINE);
    let job = Job::new(brokers, test).with("KAFKA__START", "earliest");
    let kept = Kept::of(job.with("MODEL__BASELINE", baseline.to_str().unwrap()));
    create(brokers, &kept.job.raw, PARTITIONS, &[]);
    (kept, files)
}

fn send_all(job: &Job, numbers: std::ops::Range<u64>) {
    (0..PARTITIONS).for_each(|partition| send_quotes(job, partition, numbers.clone()));
}

/// The variant of the model that made each prediction, with the offset of its row.
fn variants(job: &Job) -> Vec<Vec<(u64, String)>> {
    let variant = |partition: usize, record: &crate::support::kafka::Record| {
        let value: Value = serde_json::from_str(record.text()).unwrap();
        (source(job, partition, record).0, value["model_variant"].as_str().unwrap().to_owned())
    };
    let outputs = job.outputs("predictions").into_iter().enumerate();
    outputs.map(|(at, records)| records.iter().map(|record| variant(at, record)).collect()).collect()
}

#[track_caller]
fn assert_refused(job: &Job) {
    let ended = finish(job.run(["--until-end"]), None);
    assert_ends(&ended, 2, &["was configured differently", "--adopt"]);
}

#[test]
fn other_settings_are_refused_until_they_are_adopted_behind_a_record() {
    let Some(brokers) = brokers("other_settings_are_refused_until_they_are_adopted_behind_a_record") else {
        return;
    };
    let (kept, _files) = with_baseline(&brokers, "adopted");
    let job = &kept.job;
    send_all(job, 0..50);
    go_on(job, &[]);
    // Rows that the settings of before have not seen yet are theirs all the same.
    send_all(job, 50..80);
    let baseline = kept.with("MODEL__VARIANT", "baseline");
    assert_refused(&baseline);
    go_on(&baseline, &["--adopt"]);
    send_all(job, 80..100);
    go_on(&baseline, &["-w", "1"]);
    assert_refused(job);
    let all_before = |variants: &Vec<(u64, String)>| {
        assert_eq!(variants.len(), 100);
        let right =
            |(offset, variant): &(u64, String)| variant == if *offset < 80 { "ml" } else { "baseline" };
        assert_eq!(variants.iter().find(|found| !right(found)), None);
    };
    variants(job).iter().for_each(all_before);
    for answers in values(job, "control") {
        let told: Vec<_> = answers.iter().map(|answer| (&answer["state"], &answer["offset"])).collect();
        assert_eq!(told, [(&"applied".into(), &80.into())]);
    }
    assert!(job.outputs("gaps").concat().is_empty(), "a model leaves windows as they are");

    let shorter = baseline.clone().with("FEATURES__WINDOW", "30s");
    assert_refused(&shorter);
    go_on(&shorter, &["--adopt"]);
    send_all(job, 100..120);
    go_on(&shorter, &[]);
    for (partition, gaps) in values(job, "gaps").into_iter().enumerate() {
        let told: Vec<_> = gaps.iter().map(|gap| (&gap["instrument"], &gap["reason"])).collect();
        assert_eq!(told, [(&format!("P{partition}").into(), &"reconfigured".into())]);
    }
    for rows in values(job, "features") {
        let n = |at: usize| rows[at]["n"].as_u64().unwrap();
        assert_eq!((rows.len(), n(99), n(100), n(119)), (120, 99, 0, 19), "windows begin anew at the gap");
    }
    let once = |offset: u64| (offset, 1);
    let expected: std::collections::BTreeMap<u64, usize> =
        (0..122).filter(|offset| ![80, 101].contains(offset)).map(once).collect();
    assert_eq!(sources(job, "features"), [expected.clone(), expected]);
}

#[test]
fn before_the_first_row_any_settings_will_do() {
    let Some(brokers) = brokers("before_the_first_row_any_settings_will_do") else { return };
    let (kept, _files) = with_baseline(&brokers, "unbegun");
    go_on(&kept.job, &[]);
    let baseline = kept.with("MODEL__VARIANT", "baseline");
    assert_refused(&baseline);
    go_on(&baseline, &["--adopt"]);
    send_all(&baseline, 0..20);
    go_on(&baseline, &[]);
    assert_each_once(&sources(&baseline, "predictions"), &[20, 20]);
    let others =
        variants(&baseline).concat().into_iter().filter(|(_, variant)| variant != "baseline").count();
    assert_eq!(others, 0);
}
