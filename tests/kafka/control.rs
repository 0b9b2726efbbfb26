//! Control records through a real Kafka: `foreshock control` appends them, every partition obeys and answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kafka::job::{Job, Message, quote, send, source, summary};
use crate::support::kafka::brokers;
use crate::support::{Files, finish, foreshock};

const MODEL: &str = "name: other\nversion: \"2\"\nkind: baseline\nfeatures:\n  - name: volatility_z\n    null: 0\nthreshold: 3\ndecision_threshold: 0.5\nhorizon: 60s\n";

#[track_caller]
fn control(job: &Job, files: &Files, args: &[&str]) -> Value {
    let mut command = foreshock();
    command.args(["control", "model", "--json", "--brokers", &job.brokers]).args(args);
    command.arg(files.add("model.yaml", MODEL));
    command.env("FORESHOCK_TOPICS__INPUT", &job.raw).env("FORESHOCK_JOB__NAME", &job.name);
    command.env("FORESHOCK_TOPICS__CONTROL", job.topic("control"));
    summary(&finish(command, None))
}

/// The model version of each prediction, by partition and offset of its row.
fn versions(job: &Job) -> Vec<BTreeMap<u64, String>> {
    let of_partition = |(partition, records): (usize, &Vec<_>)| {
        let version = |record| {
            let record: &crate::support::kafka::Record = record;
            let value: Value = serde_json::from_str(record.text()).unwrap();
            (source(job, partition, record).0, value["model_version"].as_str().unwrap().to_owned())
        };
        records.iter().map(version).collect()
    };
    job.outputs("predictions").iter().enumerate().map(of_partition).collect()
}

/// State, id and offset of each answer, by partition.
fn answers(job: &Job) -> Vec<Vec<(String, Option<String>, u64)>> {
    let read = |record: &crate::support::kafka::Record| {
        let answer: Value = serde_json::from_str(record.text()).unwrap();
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        assert_eq!(record.key, text("id"));
        (text("state").unwrap(), text("id"), answer["offset"].as_u64().unwrap())
    };
    job.outputs("control").iter().map(|records| records.iter().map(read).collect()).collect()
}

#[test]
fn a_model_record_changes_predictions_at_its_offset_in_every_partition_and_after_a_restart() {
    let Some(brokers) = brokers("control") else { return };
    let job = Job::new(&brokers, "control");
    let files = Files::new();
    let first: Vec<String> = (0..2).map(|partition| quote(partition, 0)).collect();
    job.feed([files.add("none.ndjson", format!("{}\n{}\n", first[0], first[1]))], 2);
    // The feed has put both where their keys belong; the rest goes to a partition each.
    let begun: Vec<u64> =
        crate::support::kafka::records(&brokers, &job.raw).iter().map(|r| r.len() as u64).collect();
    for partition in 0..2 {
        let quotes: Vec<String> = (1..=50).map(|number| quote(10 + partition, number)).collect();
        send(
            &job,
            quotes.iter().map(|quote| Message {
                partition,
                key: None,
                value: Some(quote.as_bytes()),
                headers: vec![],
            }),
        );
    }
    let appended = control(&job, &files, &["--id", "m2"]);
    assert_eq!(appended["partitions"].as_array().unwrap().len(), 2, "{appended}");
    let more = |from: u64| {
        for partition in 0..2 {
            let quotes: Vec<String> = (from..from + 20).map(|number| quote(10 + partition, number)).collect();
            send(
                &job,
                quotes.iter().map(|quote| Message {
                    partition,
                    key: None,
                    value: Some(quote.as_bytes()),
                    headers: vec![],
                }),
            );
        }
    };
    more(51);
    job.run_through(&["-w", "2"]);
    let check = || {
        for (partition, versions) in versions(&job).into_iter().enumerate() {
            let record = begun[partition] + 50;
            assert!(versions.len() > 60, "{} predictions", versions.len());
            for (offset, version) in versions {
                assert_eq!(version, if offset < record { "1" } else { "2" }, "{partition}/{offset}");
            }
        }
    };
    check();

    // The same id again, one that is broken, and rows behind them: by a job that was stopped meanwhile.
    control(&job, &files, &["--id", "m2"]);
    let broken = |partition| Message {
        partition,
        value: Some(b"no record"),
        headers: vec![("foreshock-control", b"1")],
        ..Message::default()
    };
    send(&job, [broken(0), broken(1)]);
    more(71);
    summary(&finish(job.run(["--until-end", "-w", "1"]), None));
    check();
    for (partition, answers) in answers(&job).into_iter().enumerate() {
        let at = begun[partition] + 50;
        let id = Some("m2".to_owned());
        let expected = [
            ("applied".to_owned(), id.clone(), at),
            ("duplicate".to_owned(), id, at + 21),
            ("refused".to_owned(), None, at + 22),
        ];
        assert_eq!(answers, expected, "partition {partition}");
    }
    for letters in job.outputs("deadletter") {
        let letter: Value = serde_json::from_str(letters.last().unwrap().text()).unwrap();
        assert_eq!(letter["reason"], "bad_control");
    }
}

#[test]
fn the_command_waits_for_the_answers_of_a_running_job() {
    let Some(brokers) = brokers("control_waits") else { return };
    let job = Job::new(&brokers, "control_waits");
    let files = Files::new();
    let first: Vec<String> = (0..2).map(|partition| quote(partition, 0)).collect();
    job.feed([files.add("none.ndjson", format!("{}\n{}\n", first[0], first[1]))], 2);
    job.run_through(&["-w", "1"]);
    let mut running = job.run(["-w", "1"]).spawn().unwrap();
    let answered = control(&job, &files, &["--wait", "60"]);
    running.kill().unwrap();
    running.wait().unwrap();
    for partition in answered["partitions"].as_array().unwrap() {
        assert_eq!(partition["state"], "applied", "{answered}");
    }
}
