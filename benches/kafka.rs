//! Kafka to Kafka: a job with one worker beside a bare loop over the same client, with the same properties, that
//! reads the same messages and writes records of the same sizes without looking at anything.
//!
//! ```text
//! KAFKA_BOOTSTRAP_SERVERS=$(scripts/kafka start) cargo bench --bench kafka -- [TICKS] [PAIRS]
//! ```
//! Both run in turn, several times; what counts is the median of the pairs' ratios.

use std::env;
use std::time::{Duration, Instant};

use foreshock::config::{Config, Kafka, Mode};
use foreshock::kafka::admin::topics::TopicAdmin;
use foreshock::kafka::client::{Role, client_config};
use foreshock_testkit::feed;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};

#[allow(dead_code, reason = "other benches use more of it")]
mod support;

use support::figures::median;
use support::job::{config, flush, job, producer, send, settings};

const TICKS: usize = 500_000;
const PAIRS: usize = 5;
const INSTRUMENTS: usize = 20;

/// Sizes of the job's two records for a tick of this feed.
const FEATURES_BYTES: usize = 560;
const PREDICTION_BYTES: usize = 262;

fn main() {
    let Ok(brokers) = env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        eprintln!("skipped: set KAFKA_BOOTSTRAP_SERVERS, see scripts/kafka");
        return;
    };
    let mut numbers = env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (ticks, pairs) = (numbers.next().unwrap_or(TICKS), numbers.next().unwrap_or(PAIRS));
    let name = format!("bench-{}", std::process::id());
    // The demo's way of delivery: at least once.
    let config = config(&settings(&brokers, &name), Mode::Demo);
    let topics = TopicAdmin::new(&config.kafka, &name).expect("a client can be made");
    for topic in ["raw", "bare"] {
        topics.create(&format!("{name}.{topic}"), 1).expect("the topic can be made");
    }
    let sent = produce(&config.kafka, &format!("{name}.raw"), ticks);
    println!("{ticks} ticks of {INSTRUMENTS} instruments, {} bytes each, in one partition", sent / ticks);
    let (mut bare, mut job) = (Vec::new(), Vec::new());
    for pair in 1..=pairs {
        bare.push(bare_loop(&config.kafka, &name, ticks));
        job.push(run_job(&config, ticks));
        let (bare, job) = (bare[pair - 1], job[pair - 1]);
        println!(
            "pair {pair}: bare loop {:>7.0} ticks/s, job {:>7.0} ticks/s, ratio {:.2}",
            rate(ticks, bare),
            rate(ticks, job),
            bare.as_secs_f64() / job.as_secs_f64(),
        );
    }
    // Pair by pair: what else the machine does changes within minutes.
    let mut ratios: Vec<f64> =
        bare.iter().zip(&job).map(|(bare, job)| bare.as_secs_f64() / job.as_secs_f64()).collect();
    println!("median ratio of {pairs} pairs: {:.2}", median(&mut ratios));
}

fn rate(ticks: usize, took: Duration) -> f64 {
    ticks as f64 / took.as_secs_f64()
}

/// Fills the input; says how many bytes went there.
fn produce(kafka: &Kafka, topic: &str, ticks: usize) -> usize {
    let producer = producer(kafka);
    let recipe = feed::Recipe {
        seed: 1,
        products: INSTRUMENTS,
        pace: 200_000,
        ties: false,
        dirt: false,
        silences: false,
    };
    let mut bytes = 0;
    for message in feed::Feed::new(recipe).filter(|message| message.line.contains("\"ticker\"")).take(ticks) {
        bytes += message.line.len();
        send(&producer, || {
            BaseRecord::to(topic).partition(0).key("coinbase:X").payload(message.line.as_str())
        });
    }
    flush(&producer);
    bytes
}

/// Reads each message and writes two records of the job's sizes.
fn bare_loop(kafka: &Kafka, name: &str, ticks: usize) -> Duration {
    let started = Instant::now();
    let config = client_config(kafka, "bench", Role::Consumer);
    let consumer: BaseConsumer = config.create().expect("a consumer can be made");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&format!("{name}.raw"), 0, Offset::Beginning).expect("the offset is legal");
    consumer.assign(&from).expect("the partition can be assigned");
    let producer = producer(kafka);
    let topic = format!("{name}.bare");
    let texts = ["f".repeat(FEATURES_BYTES), "p".repeat(PREDICTION_BYTES)];
    let mut read = 0;
    while read < ticks {
        let Some(message) = consumer.poll(Duration::from_millis(10)) else { continue };
        let message = message.expect("the input can be read");
        let source = format!("{name}.raw/0/{}/0", message.offset());
        for text in &texts {
            send(&producer, || {
                let header = Header { key: "source", value: Some(&source) };
                let headers = OwnedHeaders::new_with_capacity(1).insert(header);
                BaseRecord::to(&topic)
                    .partition(0)
                    .key("coinbase:PRODUCT-1")
                    .payload(text.as_str())
                    .headers(headers)
            });
        }
        read += 1;
        if read % 256 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    flush(&producer);
    started.elapsed()
}

fn run_job(config: &Config, ticks: usize) -> Duration {
    let job = job(config);
    let started = Instant::now();
    let done = job.run().expect("the job runs to the end");
    let took = started.elapsed();
    assert_eq!(done.counts.ticks as usize, ticks);
    took
}
