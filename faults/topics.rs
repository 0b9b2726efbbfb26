//! Topics of the campaign: made, fed and read on the broker's own address, never through the proxy.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foreshock_operators::outputs::OutputKind;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::judge::{Output, Topic};

/// How long anything may take that the broker has a part in.
const PATIENCE: Duration = Duration::from_secs(180);

/// The topic of a job's kind of output.
pub fn output_topic(job: &str, kind: OutputKind) -> String {
    format!("{job}.{}", kind.name())
}

/// The topics of all kinds of output of a job.
pub fn output_topics(job: &str) -> Vec<String> {
    OutputKind::of_topics().map(|kind| output_topic(job, kind)).collect()
}

/// What all clients of the campaign itself have in common.
pub fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "500");
    // The broker is killed on purpose.
    config.set("log.connection.close", "false").set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config
}

pub fn consumer(brokers: &str, committed_only: bool) -> Result<BaseConsumer> {
    let mut config = client(brokers);
    config.set("group.id", "faults").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    config.set("isolation.level", if committed_only { "read_committed" } else { "read_uncommitted" });
    config.set("fetch.wait.max.ms", "10").set("auto.offset.reset", "earliest");
    Ok(config.create()?)
}

/// Creates topics with so many partitions each.
pub fn create(brokers: &str, topics: &[String], partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    let new = topics.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1)));
    let new: Vec<NewTopic> = new.collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let made = runtime.block_on(admin.create_topics(&new, &options)).context("could not create topics")?;
    for topic in made {
        if let Err((name, code)) = topic {
            anyhow::bail!("could not create topic {name}: {code}");
        }
    }
    Ok(())
}

/// All partitions of topics, from their beginnings.
pub fn all_partitions(topics: &[String], partitions: i32) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    Ok(list)
}

/// All committed outputs of a job.
pub fn outputs(brokers: &str, job: &str, partitions: i32) -> Result<Vec<Topic>> {
    let empty =
        |kind: OutputKind| Topic { kind: kind.name(), partitions: vec![Vec::new(); partitions as usize] };
    let mut found: Vec<Topic> = OutputKind::of_topics().map(empty).collect();
    read(brokers, &output_topics(job), partitions, true, |topic, partition, output| {
        found[topic].partitions[partition].push(output);
    })?;
    Ok(found)
}

/// How many outputs a job sent in all, those of aborted transactions too.
pub fn sent(brokers: &str, job: &str, partitions: i32) -> Result<usize> {
    let mut count = 0;
    read(brokers, &output_topics(job), partitions, false, |_, _, _| count += 1)?;
    Ok(count)
}

fn read(
    brokers: &str,
    topics: &[String],
    partitions: i32,
    committed_only: bool,
    mut take: impl FnMut(usize, usize, Output),
) -> Result<()> {
    let consumer = consumer(brokers, committed_only)?;
    let list = all_partitions(topics, partitions)?;
    consumer.assign(&list)?;
    let mut left = list.count();
    let deadline = Instant::now() + PATIENCE;
    while left > 0 {
        ensure!(Instant::now() < deadline, "{topics:?} could not be read to their ends within {PATIENCE:?}");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error).context("could not read outputs"),
            Some(Ok(message)) => {
                let headers = message.headers().into_iter().flat_map(Headers::iter);
                let headers = headers.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
                let output = Output {
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers,
                };
                let topic = topics.iter().position(|topic| topic == message.topic());
                let topic = topic.context("a record of a topic that was not asked for")?;
                take(topic, message.partition() as usize, output);
            }
        }
    }
    Ok(())
}
