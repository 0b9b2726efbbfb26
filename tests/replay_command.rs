//! `foreshock replay` from outside, against the Kafka that `KAFKA_BOOTSTRAP_SERVERS` names.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::feed::{Recipe, file as bytes_of};
use crate::support::kafka::{Record, brokers, records, unique};
use crate::support::process::Running;
use crate::support::{Backtest, Ended, Files, data, finish, foreshock, slice};

/// How long anything may take that brokers have a part in.
const PATIENCE: Duration = Duration::from_secs(30);

/// A name that no topic had before.
fn topic(test: &str) -> String {
    unique(&format!("replay-{test}"))
}

fn replay<A: AsRef<OsStr>>(brokers: &str, topic: &str, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = foreshock();
    command.args(["replay", "--json", "--brokers", brokers, "--topic", topic]).args(args);
    command
}

#[track_caller]
fn summary(ended: &Ended) -> Value {
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// MurmurHash2 as in Java's client, written once more.
fn java_partition(key: &str, partitions: usize) -> usize {
    let bytes = key.as_bytes();
    let m: i32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32 as i32 ^ bytes.len() as i32;
    for i in 0..bytes.len() / 4 {
        let at = |n: usize| i32::from(bytes[4 * i + n]);
        let mut k = at(0) + (at(1) << 8) + (at(2) << 16) + (at(3) << 24);
        k = k.wrapping_mul(m);
        k ^= (k as u32 >> 24) as i32;
        k = k.wrapping_mul(m);
        h = h.wrapping_mul(m) ^ k;
    }
    let tail = bytes.len() & !3;
    if bytes.len() % 4 >= 3 {
        h ^= i32::from(bytes[tail + 2]) << 16;
    }
    if bytes.len() % 4 >= 2 {
        h ^= i32::from(bytes[tail + 1]) << 8;
    }
    if bytes.len() % 4 >= 1 {
        h ^= i32::from(bytes[tail]);
        h = h.wrapping_mul(m);
    }
    h ^= (h as u32 >> 13) as i32;
    h = h.wrapping_mul(m);
    h ^= (h as u32 >> 15) as i32;
    (h & 0x7fff_ffff) as usize % partitions
}

#[test]
fn the_second_hash_is_javas() {
    // The value in the tests of Kafka's Java client is 479470107.
    assert_eq!(java_partition("abc", 1_000_000), 470_107);
    assert_eq!(java_partition("foobar", 1_000), (-790_332_482_i32 & 0x7fff_ffff) as usize % 1_000);
}

#[test]
fn records_are_the_messages_with_their_keys_and_headers() {
    let Some(brokers) = brokers("records_are_the_messages_with_their_keys_and_headers") else { return };
    let topic = topic("records");
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let names = [data("btcusdt-usdm.log.zst"), data("btcusdt-spot.log.zst")];
    let args = ["--speed", "max", "--partitions", "5"].map(OsStr::new);
    let files = names.iter().map(|name| name.as_os_str());
    let ended = finish(replay(&brokers, &topic, args.into_iter().chain(files)), None);
    let summary = summary(&ended);
    assert_eq!(
        (&summary["partitions"], &summary["keys"], &summary["ended"]),
        (&5.into(), &2.into(), &"log".into())
    );

    let found = records(&brokers, &topic);
    assert_eq!(found.len(), 5);
    let total: usize = found.iter().map(Vec::len).sum();
    assert_eq!(summary["messages"], total);
    for (exchange, name) in [("binance-usdm", "btcusdt-usdm.log.zst"), ("binance", "btcusdt-spot.log.zst")] {
        let key = format!("{exchange}:BTCUSDT");
        let partition = java_partition(&key, 5);
        let of_file: Vec<_> =
            found[partition].iter().filter(|record| record.key.as_deref() == Some(&key)).collect();
        let lines = slice(name);
        assert_eq!(of_file.len(), lines.len(), "{key}");
        for (record, line) in of_file.into_iter().zip(lines) {
            let line = String::from_utf8(line).unwrap();
            let (received, message) = line.trim_end().split_once(' ').unwrap();
            assert_eq!(String::from_utf8_lossy(&record.value), message);
            assert_eq!(record.headers["received_at"], received);
            assert_eq!(record.headers["exchange"], exchange);
            assert_eq!(record.headers.len(), 2);
            assert!(record.timestamp >= before, "a record's time is now");
        }
    }
}

#[test]
fn what_names_no_instrument_goes_to_partition_0() {
    let Some(brokers) = brokers("what_names_no_instrument_goes_to_partition_0") else { return };
    let topic = topic("nameless");
    let lines = [
        "wss://ws-feed.exchange.coinbase.com <-> 1618677816.8434298",
        r#"{"type":"subscriptions","channels":[]}"#,
        "",
        r#"{"type":"heartbeat","product_id":"BTC-USD","sequence":1,"time":"2026-01-02T03:04:05.000000Z"}"#,
        r#"{"type":"ticker","product_id":"BTC-USD""#,
        r#"{"type":"l2update","product_id":"ETH-USD","changes":[],"time":"2026-01-02T03:04:05.000000Z"}"#,
    ];
    let input = lines.join("\r\n").into_bytes();
    let ended = finish(replay(&brokers, &topic, ["-", "--speed", "max", "--partitions", "16"]), Some(input));
    let summary = summary(&ended);
    assert_eq!(
        (&summary["messages"], &summary["control"], &summary["blank"]),
        (&4.into(), &1.into(), &1.into())
    );
    let found = records(&brokers, &topic);
    let of = |key: &str, partition: usize| -> Vec<String> {
        let records = found[partition].iter().filter(|record| record.key.as_deref() == Some(key));
        records.map(|record| String::from_utf8(record.value.clone()).unwrap()).collect()
    };
    assert_eq!(of("coinbase", 0), [lines[1], lines[4]]);
    assert_eq!(of("coinbase:BTC-USD", java_partition("coinbase:BTC-USD", 16)), [lines[3]]);
    assert_eq!(of("coinbase:ETH-USD", java_partition("coinbase:ETH-USD", 16)), [lines[5]]);
    let headers = found.iter().flatten().map(|record| record.headers.clone());
    let expected = BTreeMap::from([("exchange".to_owned(), "coinbase".to_owned())]);
    assert!(headers.into_iter().all(|headers| headers == expected));
}

#[test]
fn the_pace_is_that_of_the_recording_or_a_multiple() {
    let Some(brokers) = brokers("the_pace_is_that_of_the_recording_or_a_multiple") else { return };
    let topic = topic("pace");
    let file = data("btcusdt-spot.log.zst");
    let args = ["--duration", "8s", "--speed", "4"].map(OsStr::new);
    let ended = finish(replay(&brokers, &topic, args.into_iter().chain([file.as_os_str()])), None);
    let summary = summary(&ended);
    assert_eq!(summary["ended"], "duration");
    let seconds = summary["seconds"].as_f64().unwrap();
    assert!((1.8..6.0).contains(&seconds), "{summary}");
    // Exactly the lines of the first 8 seconds.
    let received = |line: &[u8]| -> i64 {
        std::str::from_utf8(line).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let lines = slice("btcusdt-spot.log.zst");
    let first = received(&lines[0]);
    let expected = lines.iter().take_while(|line| received(line) < first + 8_000_000_000).count();
    assert_eq!(summary["messages"], expected);
    // Recorded and sent times go together, give or take what a busy machine and the first connection cost.
    let found = records(&brokers, &topic).concat();
    assert_eq!(found.len(), expected);
    let spread = found.last().unwrap().timestamp - found[0].timestamp;
    assert!((1_000..6_000).contains(&spread), "{spread} ms");
}

#[test]
fn a_loop_goes_on_where_the_log_ended() {
    let Some(brokers) = brokers("a_loop_goes_on_where_the_log_ended") else { return };
    let topic = topic("loop");
    let file = data("btcusdt-usdm.log.zst");
    let args = ["--loop", "--duration", "2m", "--speed", "max", "--partitions", "1"].map(OsStr::new);
    let ended = finish(replay(&brokers, &topic, args.into_iter().chain([file.as_os_str()])), None);
    let summary = summary(&ended);
    assert_eq!(summary["passes"], 4, "{summary}");
    // What the topic holds is a log like any other.
    let mut log = Vec::new();
    for record in records(&brokers, &topic).concat() {
        log.extend_from_slice(record.headers["received_at"].as_bytes());
        log.push(b' ');
        log.extend_from_slice(&record.value);
        log.push(b'\n');
    }
    let once = Backtest::of([file]).run();
    let looped = Backtest::of_stdin(log).run();
    assert_eq!(looped.count("rows.late") + looped.count("rows.duplicate"), 0);
    assert!(looped.count("rows.ticks") > 3 * once.count("rows.ticks"));
    assert!(looped.lines("gaps").is_empty());
}

#[test]
fn order_within_an_instrument_is_that_of_the_log() {
    let Some(brokers) = brokers("order_within_an_instrument_is_that_of_the_log") else { return };
    let topic = topic("order");
    let files = Files::new();
    let messages = Recipe::lively(9, 6).messages(3_000);
    let file = files.add("feed.ndjson", bytes_of(&messages));
    let args = ["--speed", "max", "--partitions", "3"].map(OsStr::new);
    let ended = finish(replay(&brokers, &topic, args.into_iter().chain([file.as_os_str()])), None);
    assert_eq!(summary(&ended)["messages"], 3_000);
    let found = records(&brokers, &topic);
    let mut left: BTreeMap<Option<String>, Vec<&[u8]>> = BTreeMap::new();
    for record in found.iter().flatten() {
        left.entry(record.key.clone()).or_default().push(&record.value);
    }
    for (key, values) in left {
        let product = key.as_deref().and_then(|key| key.strip_prefix("coinbase:")).unwrap_or_default();
        let mark = format!("\"product_id\":\"{product}\"");
        let sent = messages.iter().map(|message| message.line.as_str());
        let expected: Vec<&[u8]> = if product.is_empty() {
            continue;
        } else {
            sent.filter(|line| line.contains(&mark)).map(str::as_bytes).collect()
        };
        // Broken messages name their instrument to us, but to no parser.
        let parsed = |values: Vec<&[u8]>| -> Vec<Value> {
            values.into_iter().filter_map(|value| serde_json::from_slice(value).ok()).collect()
        };
        assert_eq!(parsed(values), parsed(expected), "{key:?}");
    }
}

#[test]
fn a_signal_ends_it_when_what_was_sent_is_delivered() {
    let Some(brokers) = brokers("a_signal_ends_it_when_what_was_sent_is_delivered") else { return };
    let topic = topic("signal");
    let file = data("btcusdt-usdm.log.zst");
    let mut child = replay(&brokers, &topic, [file.as_os_str()]).spawn().unwrap();
    // It tells when it begins to feed.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("feeding") || !line.contains("partitions") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended early");
    }
    let rest = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let asked = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(0), "{}", rest.join().unwrap());
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["ended"], "stopped");
    let found: usize = records(&brokers, &topic).iter().map(Vec::len).sum();
    assert_eq!(summary["messages"], found);
    assert!(found < 7_660, "it was stopped before the end");
}

#[test]
fn another_number_of_partitions_is_an_error() {
    let Some(brokers) = brokers("another_number_of_partitions_is_an_error") else { return };
    let topic = topic("partitions");
    let run = |partitions: &str| {
        let line =
            br#"{"type":"heartbeat","exchange":"x","instrument":"A","event_time":"2026-01-02T03:04:06Z"}"#;
        finish(replay(&brokers, &topic, ["-", "--partitions", partitions]), Some(line.to_vec()))
    };
    assert_eq!(run("3").status, Some(0));
    let ended = run("4");
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("has 3 partitions, not 4"), "{}", ended.stderr);
}

#[test]
fn a_topic_that_may_not_be_created_is_not() {
    let Some(brokers) = brokers("a_topic_that_may_not_be_created_is_not") else { return };
    let topic = topic("missing");
    for _ in 0..2 {
        let mut command = replay(&brokers, &topic, [data("btcusdt-spot.log.zst")]);
        command.env("FORESHOCK_KAFKA__CREATE_TOPICS", "false");
        let ended = finish(command, None);
        assert_eq!(ended.status, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("there is no topic {topic:?}")), "{}", ended.stderr);
    }
}

#[test]
fn brokers_that_are_away_are_an_error_soon() {
    let started = Instant::now();
    let ended = finish(replay("127.0.0.1:1", "t", [data("btcusdt-spot.log.zst")]), None);
    assert_eq!(ended.status, Some(1));
    let told = ["127.0.0.1:1", "no broker answered within 10 s", "kafka.brokers"];
    assert!(told.iter().all(|part| ended.stderr.contains(part)), "{}", ended.stderr);
    assert!(started.elapsed() < PATIENCE);
}

#[test]
fn misuse_is_told_before_anything_else() {
    #[track_caller]
    fn check(args: &[&str], input: &str, status: i32, expected: &str) {
        let ended = finish(replay("127.0.0.1:1", "t", args), Some(input.as_bytes().to_vec()));
        assert_eq!(ended.status, Some(status), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{args:?}: {}", ended.stderr);
    }
    check(&["-", "--loop"], "{}", 2, "--loop takes files");
    check(&["-", "-"], "{}", 2, "only once");
    check(&["-", "--speed", "0"], "{}", 2, "a number above 0, or max");
    check(&["-", "--duration", "0s"], "{}", 2, "a time above 0");
    check(&["-", "--duration", "5"], "{}", 2, "a time above 0");
    check(&["-", "--partitions", "0"], "{}", 2, "1..=10000");
    check(
        &["-", "--format", "binance"],
        r#"{"type":"ticker","product_id":"A"}"#,
        2,
        "looks like coinbase-exchange",
    );
    check(&["-"], "", 1, "standard input is empty");
    check(&["no-such-file"], "", 1, "could not open \"no-such-file\"");
}

/// As where the library has lost a partition's leader for good: brokers answer, and nothing arrives.
#[test]
fn a_producer_that_stands_still_is_made_anew_and_nothing_is_lost_or_repeated() {
    use rdkafka::types::{
        RDKafkaApiKey, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as MOVED,
    };
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[MOVED; 100_000]);
    let args = ["--speed", "max"].map(OsStr::new);
    let file = data("btcusdt-spot.log.zst");
    let mut command = replay(&cluster.bootstrap_servers(), "t", args.into_iter().chain([file.as_os_str()]));
    command.env("FORESHOCK_KAFKA__STALLED_AFTER", "1s");
    let mut running = Running::start(command);
    running.until_logged("made a new producer");
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    let fed = summary(&running.end());
    assert_eq!((&fed["messages"], &fed["undelivered"]), (&2_502.into(), &0.into()));
    cluster.create_topic("undisturbed", 2, 1).unwrap();
    let args = ["--speed", "max"].map(OsStr::new);
    let args = args.into_iter().chain([file.as_os_str()]);
    summary(&finish(replay(&cluster.bootstrap_servers(), "undisturbed", args), None));
    let lines = |topic| -> Vec<Vec<String>> {
        let found = records(&cluster.bootstrap_servers(), topic);
        let text = |record: &Record| record.text().to_owned();
        found.iter().map(|partition| partition.iter().map(text).collect()).collect()
    };
    assert_eq!(lines("t").concat().len(), 2_502);
    assert_eq!(lines("t"), lines("undisturbed"));
}

/// Librdkafka's mock cluster knows no `CreateTopics`, and says nothing of it.
#[test]
fn brokers_that_create_no_topics_are_a_clear_error() {
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    let ended = finish(replay(&cluster.bootstrap_servers(), "t", [data("btcusdt-spot.log.zst")]), None);
    assert_eq!(ended.status, Some(1));
    let told = ["could not create the topic \"t\"", "they may not support it"];
    assert!(told.iter().all(|part| ended.stderr.contains(part)), "{}", ended.stderr);
    cluster.create_topic("t", 2, 1).unwrap();
    let args = ["--speed", "max"].map(OsStr::new);
    let file = data("btcusdt-spot.log.zst");
    let ended =
        finish(replay(&cluster.bootstrap_servers(), "t", args.into_iter().chain([file.as_os_str()])), None);
    assert_eq!(summary(&ended)["messages"], 2_502);
}

/// Quotes at these seconds, without receive times.
fn quotes_at(seconds: &[u32]) -> Vec<u8> {
    let quote = |second: &u32| {
        let (day, hour, minute) = (2 + second / 86_400, second / 3_600 % 24, second / 60 % 60);
        format!(
            "{{\"type\":\"quote\",\"exchange\":\"x\",\"instrument\":\"A\",\"event_time\":\"2026-01-{day:02}T{hour:02}:{minute:02}:{:02}Z\",\"bid\":1,\"ask\":2}}\n",
            second % 60
        )
    };
    seconds.iter().map(quote).collect::<String>().into_bytes()
}

/// A time that is a fortnight ahead is waited for no longer than was asked, once, and the rest keeps its pace.
#[test]
fn no_pause_is_longer_than_the_longest() {
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let fortnight = 14 * 86_400;
    for (seconds, pauses, cut) in [
        (&[0, fortnight, 1, 2][..], 1, fortnight - 1),
        (&[0, 1, 2][..], 0, 0),
        (&[0, 3_600, 7_200][..], 2, 7_198),
    ] {
        let args = ["-", "--max-pause", "1s"];
        let ended = finish(replay(&cluster.bootstrap_servers(), "t", args), Some(quotes_at(seconds)));
        let fed = summary(&ended);
        assert_eq!((&fed["messages"], &fed["ended"]), (&seconds.len().into(), &"log".into()), "{fed}");
        assert_eq!(
            (&fed["pauses_cut"], fed["seconds_cut"].as_f64()),
            (&pauses.into(), Some(f64::from(cut))),
            "{fed}"
        );
        assert_eq!(ended.stderr.matches("a pause is cut to --max-pause").count(), pauses, "{}", ended.stderr);
    }
    // A silence lasts as long as the pace makes it.
    let args = ["-", "--speed", "1000", "--max-pause", "4s"];
    let fed = summary(&finish(replay(&cluster.bootstrap_servers(), "t", args), Some(quotes_at(&[0, 3_600]))));
    assert_eq!(fed["pauses_cut"], 0, "{fed}");
    let mut command = foreshock();
    command.args([
        "replay",
        "--brokers",
        &cluster.bootstrap_servers(),
        "--topic",
        "t",
        "--max-pause",
        "1ms",
        "-",
    ]);
    let ended = finish(command, Some(quotes_at(&[0, 10, 20])));
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert!(printed.lines().last().unwrap().contains("2 pauses cut by 20.0 s (--max-pause)"), "{printed}");
}

/// What comes to the file goes to the topic, until it is told to end.
#[test]
fn a_file_that_grows_is_replayed_as_it_comes() {
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let files = Files::new();
    let path = files.add("feed.ndjson", quotes_at(&[0, 1]));
    let args = ["--follow", "--speed", "max"].map(OsStr::new);
    let command = replay(&cluster.bootstrap_servers(), "t", args.into_iter().chain([path.as_os_str()]));
    let mut running = Running::start(command);
    let sent = || records(&cluster.bootstrap_servers(), "t")[0].len();
    running.until("two are there", |_| sent() == 2);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &quotes_at(&[2, 3, 4])).unwrap();
    running.until("five are there", |_| sent() == 5);
    running.signal("TERM");
    let fed = summary(&running.end());
    assert_eq!((&fed["messages"], &fed["ended"]), (&5.into(), &"stopped".into()), "{fed}");
}

/// Elements of an array are messages like any other, and a file that was cut off is sent as far as it is whole.
#[test]
fn arrays_and_cut_files_are_replayed() {
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let lines = String::from_utf8(quotes_at(&[0, 1, 2])).unwrap();
    let array = format!("[{}]", lines.trim_end().replace('\n', ",\n "));
    let all = ["-", "--speed", "max"];
    let fed = summary(&finish(replay(&cluster.bootstrap_servers(), "t", all), Some(array.clone().into())));
    assert_eq!(fed["messages"], 3, "{fed}");
    let found: Vec<String> =
        records(&cluster.bootstrap_servers(), "t")[0].iter().map(|record| record.text().to_owned()).collect();
    assert_eq!(found, lines.lines().collect::<Vec<_>>());
    let cut = array.as_bytes()[..array.len() - 9].to_vec();
    let ended = finish(replay(&cluster.bootstrap_servers(), "t", all), Some(cut.clone()));
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    let whole = ["-", "--speed", "max", "--take-whole"];
    let fed = summary(&finish(replay(&cluster.bootstrap_servers(), "t", whole), Some(cut)));
    assert_eq!(fed["messages"], 2, "{fed}");
    assert!(fed["notes"][0].as_str().unwrap().contains("element 3"), "{fed}");
}
