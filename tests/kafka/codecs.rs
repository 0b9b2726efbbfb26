//! Compressed batches are read like others. A look at the bytes in the log tells that they are compressed.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::kafka::alike::{Lines, assert_same_lines, by_instrument};
use crate::kafka::job::{Job, account, summary};
use crate::support::kafka::{brokers, records};
use crate::support::{data, finish};

/// The codecs by their number in a batch's attributes.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[test]
fn whatever_the_codec_the_outputs_are_the_same() {
    let Some(brokers) = brokers("whatever_the_codec_the_outputs_are_the_same") else { return };
    let mut plain: Option<(Lines, serde_json::Value)> = None;
    for (number, codec) in CODECS.into_iter().enumerate() {
        // The job's own outputs are compressed too.
        let property = format!("compression.codec={codec}");
        let job = Job::new(&brokers, codec).with("KAFKA__PRODUCER_PROPERTIES", &property);
        let mut replay = job.replay([data("btcusdt-spot.log.zst")]);
        replay.args(["--speed", "max", "--partitions", "1"]);
        replay.env("FORESHOCK_KAFKA__PRODUCER_PROPERTIES", &property);
        summary(&finish(replay, None));
        let found = account(&job.run_through(&[]));
        assert_eq!(records(&brokers, &job.raw).concat().len(), 2_502);

        let raw = codecs(&brokers, &job.raw);
        assert!(raw.contains(&number), "{codec}: {raw:?}");
        // A batch that would grow is left as it is: it holds one message or a few.
        assert!(raw.iter().all(|found| *found == number || *found == 0), "{codec}: {raw:?}");
        let features = codecs(&brokers, &job.topic("features"));
        assert!(features.contains(&number), "{codec}: {features:?}");

        let lines = by_instrument(&job.all_outputs());
        match &plain {
            None => plain = Some((lines, found)),
            Some((expected, counts)) => {
                assert_same_lines(expected, &lines, codec);
                assert_eq!(&found, counts, "{codec}");
            }
        }
    }
}

/// The codec of each batch among the first bytes of partition 0 of a topic: a request of our own, since no client
/// tells. <https://kafka.apache.org/protocol> has Fetch (version 4), <https://kafka.apache.org/documentation> the
/// batch.
#[track_caller]
fn codecs(brokers: &str, topic: &str) -> Vec<usize> {
    let mut request = Vec::new();
    let mut put = |bytes: &[u8]| request.extend_from_slice(bytes);
    // Fetch, version 4, correlation id 7, no client id.
    put(&[0, 1, 0, 4, 0, 0, 0, 7, 0xff, 0xff]);
    // No replica; wait for at most a second for one byte, at most a MiB; uncommitted too.
    put(&(-1_i32).to_be_bytes());
    put(&1_000_i32.to_be_bytes());
    put(&1_i32.to_be_bytes());
    put(&(1_i32 << 20).to_be_bytes());
    put(&[0]);
    // One topic with one partition, from offset 0.
    put(&1_i32.to_be_bytes());
    put(&(topic.len() as i16).to_be_bytes());
    put(topic.as_bytes());
    put(&1_i32.to_be_bytes());
    put(&0_i32.to_be_bytes());
    put(&0_i64.to_be_bytes());
    put(&(1_i32 << 20).to_be_bytes());

    let mut stream = TcpStream::connect(brokers.split(',').next().unwrap()).unwrap();
    stream.write_all(&(request.len() as u32).to_be_bytes()).unwrap();
    stream.write_all(&request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();

    let int = |at: usize| i32::from_be_bytes(answer[at..at + 4].try_into().unwrap());
    // Correlation id, throttle time, one topic with its name, one partition with its number.
    assert_eq!((int(0), int(8)), (7, 1), "an answer to the request");
    let at = 14 + topic.len() + 8;
    assert_eq!(answer[at..at + 2], [0, 0], "no error");
    // High watermark, last stable offset, no aborted transactions, and the length of what follows.
    let at = at + 2 + 16;
    assert!(int(at) <= 0, "no aborted transactions");
    let (mut at, end) = (at + 8, at + 8 + int(at + 4) as usize);
    let mut found = Vec::new();
    // Offset (8), length (4), leader epoch (4), magic (1), checksum (4), attributes (2); the last may be cut off.
    while at + 23 <= end {
        assert_eq!(answer[at + 16], 2, "the magic of a batch");
        found.push(usize::from(answer[at + 22] & 7));
        at += 12 + int(at + 8) as usize;
    }
    found
}
