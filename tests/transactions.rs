//! What exactly-once rests on: that the brokers' transactions are what they say. A broker that fails here can't be used
//! for it, whatever the job does.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::kafka::{brokers, unique};

const PATIENCE: Duration = Duration::from_secs(30);

fn producer(brokers: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", id)
        .set("linger.ms", "0")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, text: &str) {
    producer.send(BaseRecord::<str, str>::to(topic).partition(0).payload(text)).unwrap();
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
}

fn consumer(brokers: &str, level: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", unique("reader"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", level)
        .create()
        .unwrap()
}

/// All that a reader of this isolation level finds in partition 0.
fn read(brokers: &str, topic: &str, level: &str) -> Vec<String> {
    let consumer = consumer(brokers, level);
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&place).unwrap();
    let mut found = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("the log can be read to its end") {
            Ok(message) => found.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap()),
            Err(KafkaError::PartitionEOF(_)) => return found,
            Err(error) => panic!("{error}"),
        }
    }
}

fn settled(brokers: &str, topic: &str) -> Vec<String> {
    read(brokers, topic, "read_committed")
}

#[test]
fn what_is_committed_is_seen() {
    let Some(brokers) = brokers("what_is_committed_is_seen") else { return };
    let name = unique("commit");
    let producer = producer(&brokers, &name);
    send(&producer, &name, "a");
    send(&producer, &name, "b");
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(settled(&brokers, &name), ["a", "b"]);
}

#[test]
fn what_is_aborted_is_hidden() {
    let Some(brokers) = brokers("what_is_aborted_is_hidden") else { return };
    let name = unique("abort");
    let producer = producer(&brokers, &name);
    send(&producer, &name, "a");
    producer.abort_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &name, "b");
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(settled(&brokers, &name), ["b"]);
    assert_eq!(read(&brokers, &name, "read_uncommitted"), ["a", "b"], "it was there");
}

#[test]
fn an_open_transaction_hides_what_others_commit_behind_it() {
    let Some(brokers) = brokers("an_open_transaction_hides_what_others_commit_behind_it") else { return };
    let name = unique("open");
    let (slow, fast) =
        (producer(&brokers, &format!("{name}-slow")), producer(&brokers, &format!("{name}-fast")));
    send(&slow, &name, "a");
    send(&fast, &name, "b");
    fast.commit_transaction(PATIENCE).unwrap();
    assert_eq!(settled(&brokers, &name), [""; 0]);
    slow.commit_transaction(PATIENCE).unwrap();
    assert_eq!(settled(&brokers, &name), ["a", "b"]);
}

#[test]
fn a_producer_that_was_replaced_can_commit_nothing() {
    let Some(brokers) = brokers("a_producer_that_was_replaced_can_commit_nothing") else { return };
    let name = unique("zombie");
    let old = producer(&brokers, &name);
    send(&old, &name, "a");
    let new = producer(&brokers, &name);
    send(&new, &name, "b");
    old.commit_transaction(PATIENCE).expect_err("it was replaced");
    new.commit_transaction(PATIENCE).unwrap();
    assert_eq!(settled(&brokers, &name), ["b"]);
}

#[test]
fn offsets_and_what_stands_beside_them_are_part_of_the_transaction() {
    let Some(brokers) = brokers("offsets_and_what_stands_beside_them_are_part_of_the_transaction") else {
        return;
    };
    let name = unique("offsets");
    let group: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &brokers).set("group.id", &name).create().unwrap();
    let producer = producer(&brokers, &name);
    send(&producer, &name, "a");
    let commit = |offset, note: &str| {
        let mut offsets = TopicPartitionList::new();
        let mut place = offsets.add_partition(&name, 0);
        place.set_offset(Offset::Offset(offset)).unwrap();
        place.set_metadata(note);
        let members = group.group_metadata().unwrap();
        producer.send_offsets_to_transaction(&offsets, &members, PATIENCE).unwrap();
    };
    let committed = || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&name, 0);
        let answer = group.committed_offsets(asked, PATIENCE).unwrap();
        let found = answer.find_partition(&name, 0).unwrap();
        (found.offset(), found.metadata().to_owned())
    };
    commit(7, "lost");
    producer.abort_transaction(PATIENCE).unwrap();
    assert_eq!(committed().0, Offset::Invalid);
    producer.begin_transaction().unwrap();
    send(&producer, &name, "b");
    commit(8, "kept");
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(committed(), (Offset::Offset(8), "kept".to_owned()));
}
