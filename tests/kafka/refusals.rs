//! What a job doesn't begin with, or can't go on with: it ends, and its last line says why.

use std::net::TcpListener;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::job::{Job, Message, assert_each_once, quote, send, send_quotes, sources, stats, summary};
use crate::support::kafka::{brokers, commit, committed, unique};
use crate::support::process::Running;
use crate::support::{finish, foreshock, http};

/// Runs a job that shall end by itself; it must fail and say all of these.
#[track_caller]
fn assert_fails<A: AsRef<std::ffi::OsStr>>(job: &Job, args: impl IntoIterator<Item = A>, told: &[&str]) {
    let ended = Running::start(job.run(args)).end();
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.is_empty(), "no account of what failed");
    let last = ended.stderr.lines().last().unwrap_or_default();
    for part in told {
        assert!(last.contains(part), "{part:?} is not in {}", ended.stderr);
    }
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[track_caller]
pub fn create(brokers: &str, topic: &str, partitions: i32) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let made = block_on(admin(brokers).create_topics(&[new], &AdminOptions::new())).unwrap();
    assert_eq!(made, [Ok(topic.to_owned())]);
}

#[test]
fn an_instrument_in_two_partitions_stops_the_job() {
    let Some(brokers) = brokers("an_instrument_in_two_partitions_stops_the_job") else { return };
    for workers in ["1", "2"] {
        let job = Job::new(&brokers, "strayed");
        create(&brokers, &job.raw, 2);
        send_quotes(&job, 1, 0..10);
        let strayed = quote(1, 10);
        let strayed = Message { partition: 0, value: Some(strayed.as_bytes()), ..Message::default() };
        send(&job, [strayed]);
        let told = ["x:P1 was met in", &format!("{}/0", job.raw), &format!("{}/1", job.raw)];
        assert_fails(&job, ["--from-beginning", "-w", workers], &told);
    }
}

#[test]
fn an_output_topic_with_too_few_partitions_is_named() {
    let Some(brokers) = brokers("an_output_topic_with_too_few_partitions_is_named") else { return };
    let job = Job::new(&brokers, "few").with("KAFKA__PARTITIONS", "3");
    create(&brokers, &job.topic("alerts"), 2);
    let topic = job.topic("alerts");
    assert_fails(&job, ["--until-end"], &[&topic, "has 2 partitions and the input 3", "topics.alerts"]);
    // One that isn't written doesn't matter.
    summary(&finish(job.run(["--until-end", "--emit", "features"]), None));
}

#[test]
fn a_committed_offset_that_is_gone_says_what_to_do() {
    let Some(brokers) = brokers("a_committed_offset_that_is_gone_says_what_to_do") else { return };
    let job = Job::new(&brokers, "gone").with("KAFKA__PARTITIONS", "1");
    send_quotes(&job, 0, 0..20);
    // The topic was made anew.
    commit(&brokers, &job.name, &job.raw, 0, 1_000);
    let shard = format!("{}/0", job.raw);
    assert_fails(&job, ["--until-end"], &[&shard, "offset 1000", "only 0 to 20", "--from-beginning"]);
    assert_eq!(committed(&brokers, &job.name, &job.raw)[0], Some(1_000), "nothing is done about it unasked");
    // Records were removed.
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&job.raw, 0, Offset::Offset(7)).unwrap();
    block_on(admin(&brokers).delete_records(&before, &AdminOptions::new())).unwrap();
    commit(&brokers, &job.name, &job.raw, 0, 3);
    assert_fails(&job, ["--until-end"], &[&shard, "offset 3", "only 7 to 20", "--from-beginning"]);

    let account = job.run_through(&[]);
    assert_eq!(account["messages_in"], 13);
    assert_eq!(committed(&brokers, &job.name, &job.raw)[0], Some(20));
}

#[test]
fn records_removed_under_a_running_job_stop_it() {
    let Some(brokers) = brokers("records_removed_under_a_running_job_stop_it") else { return };
    // Its outputs linger, so that it reads no more while its backlog is full.
    let job = Job::new(&brokers, "removed")
        .with_http()
        .with("KAFKA__PARTITIONS", "1")
        .with("KAFKA__START", "earliest")
        .with("JOB__MEMORY_BUDGET", "8MiB")
        .with("KAFKA__CONSUMER_PROPERTIES", "queued.min.messages=1,fetch.message.max.bytes=1024")
        .with("KAFKA__PRODUCER_PROPERTIES", "linger.ms=8000,batch.num.messages=1000000,batch.size=100000000");
    send_quotes(&job, 0, 0..40_000);
    let mut running = Running::start(job.run(["-w", "1"]));
    let address = running.http();
    running.until("it reads", |_| stats(address)["counts"]["messages_in"].as_i64().unwrap() > 0);
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&job.raw, 0, Offset::Offset(39_990)).unwrap();
    block_on(admin(&brokers).delete_records(&before, &AdminOptions::new())).unwrap();
    let ended = running.end();
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("doesn't have this offset any more") && last.contains("--from-beginning"),
        "{last}"
    );
}

#[test]
fn a_topic_that_may_not_be_created_is_named() {
    let Some(brokers) = brokers("a_topic_that_may_not_be_created_is_named") else { return };
    let job = Job::new(&brokers, "missing").with("KAFKA__CREATE_TOPICS", "false");
    let told = format!("there is no topic {:?}", job.raw);
    // The second time tells that the first didn't create it.
    for _ in 0..2 {
        assert_fails(&job, ["--until-end"], &[&told, "kafka.create_topics is false"]);
    }
    create(&brokers, &job.raw, 1);
    let told = format!("there is no topic {:?}", job.topic("features"));
    assert_fails(&job, ["--until-end"], &[&told]);
}

#[test]
fn a_wrong_property_is_named_whichever_client_it_is_for() {
    let Some(brokers) = brokers("a_wrong_property_is_named_whichever_client_it_is_for") else { return };
    for (key, client) in
        [("PROPERTIES", "client"), ("CONSUMER_PROPERTIES", "client"), ("PRODUCER_PROPERTIES", "producer")]
    {
        let job = Job::new(&brokers, "property").with(&format!("KAFKA__{key}"), "no.such.property=1");
        let told = ["no.such.property", "kafka.properties", &format!("could not make a Kafka {client}")];
        assert_fails(&job, ["--until-end"], &told);
    }
}

#[test]
fn brokers_that_are_away_are_waited_for() {
    // Nobody listens there.
    let job = Job::new("127.0.0.1:1", "away").with_http();
    let mut running = Running::start(job.run(["-w", "1"]));
    let address = running.http();
    running.until_logged("no Kafka broker answers; trying again");
    let (status, health) = http::get(address, "/health");
    assert_eq!(
        (status, &health["status"], &health["kafka_connected"]),
        (503, &"unhealthy".into(), &false.into())
    );
    assert!(health["reason"].as_str().unwrap().starts_with("starting"), "{health}");
    assert_eq!(http::get(address, "/ready").0, 503);
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(summary(&ended)["messages_in"], 0);
}

#[test]
fn a_port_in_use_is_told_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // Told at once, whatever the brokers do.
    let job = Job::new("127.0.0.1:1", "port").with("HTTP__LISTEN", &address);
    assert_fails(&job, ["--until-end"], &["could not listen at", &address, "http.listen"]);
}

#[test]
fn wrong_calls_are_told_apart_from_failures() {
    #[track_caller]
    fn check(args: &[&str], expected: &str) {
        let mut command = foreshock();
        command.arg("run").args(args);
        let ended = finish(command, None);
        assert_eq!(ended.status, Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{args:?}: {}", ended.stderr);
    }
    check(&["--emit", "scored"], "scored rows go to files only");
    check(&["--emit", "everything"], "expected one of");
    check(&["--workers", "0"], "expected a whole number");
    check(&["--brokers", "nowhere"], "host:port");
    check(&["--config", "no-such-file.yaml"], "no-such-file.yaml");
}

/// Outputs that linger in the producer keep a stop from ending.
fn lingering(brokers: &str, stop_timeout: &str) -> (Job, Running) {
    let job = Job::new(brokers, &unique("linger"))
        .with_http()
        .with("KAFKA__PARTITIONS", "1")
        .with("KAFKA__START", "earliest")
        .with("JOB__DELIVERY", "at_least_once")
        .with("KAFKA__STOP_TIMEOUT", stop_timeout)
        .with("KAFKA__PRODUCER_PROPERTIES", "linger.ms=300000");
    send_quotes(&job, 0, 0..50);
    let mut running = Running::start(job.run(["-w", "1"]));
    let address = running.http();
    running.until("all is read", |_| stats(address)["counts"]["messages_in"] == 50);
    (job, running)
}

#[test]
fn a_second_signal_stops_at_once() {
    let Some(brokers) = brokers("a_second_signal_stops_at_once") else { return };
    let (job, mut running) = lingering(&brokers, "10m");
    running.signal("TERM");
    running.until_logged("a second signal stops at once");
    assert!(running.is_running());
    running.signal("TERM");
    let ended = running.end();
    assert_eq!((ended.status, ended.stdout.as_slice()), (Some(1), &b""[..]), "{}", ended.stderr);
    assert_read_again(job);
}

#[test]
fn what_is_not_delivered_at_a_stop_is_an_error_and_read_again() {
    let Some(brokers) = brokers("what_is_not_delivered_at_a_stop_is_an_error_and_read_again") else { return };
    let (job, running) = lingering(&brokers, "1s");
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.contains("not delivered within 1s"), "{last}");
    assert_read_again(job);
}

/// Nothing was committed, so the next run has it all.
#[track_caller]
fn assert_read_again(mut job: Job) {
    assert_eq!(committed(&job.brokers, &job.name, &job.raw), [Some(0)]);
    job = job.with("KAFKA__PRODUCER_PROPERTIES", "linger.ms=1").with("KAFKA__STOP_TIMEOUT", "60s");
    let account = summary(&finish(job.run(["--until-end"]), None));
    assert_eq!(account["messages_in"], 50);
    assert_each_once(&sources(&job, "features"), &[50]);
}
