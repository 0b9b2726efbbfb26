//! Brokers that go and come back: a job and a replay wait and go on by themselves, and lose and repeat nothing.

use std::net::SocketAddr;

use serde_json::Value;

use crate::kafka::alike::{assert_same_lines, by_instrument, lines};
use crate::kafka::job::{Job, account, over_shards, stats, summary};
use crate::kafka::own::Broker;
use crate::support::kafka::records;
use crate::support::process::Running;
use crate::support::{Backtest, data, http};

#[test]
fn a_broker_that_is_stopped_and_started_costs_nothing() {
    check("a_broker_that_is_stopped_and_started_costs_nothing", "exactly_once", Broker::stop);
}

#[test]
fn a_broker_that_is_killed_and_started_costs_nothing() {
    check("a_broker_that_is_killed_and_started_costs_nothing", "at_least_once", Broker::kill);
}

fn connected(address: SocketAddr) -> (u16, Value) {
    let (status, health) = http::get(address, "/health");
    (status, health["kafka_connected"].clone())
}

/// Takes the broker away with `end` while a replay feeds and a job reads.
fn check(test: &str, delivery: &str, end: impl Fn(&Broker)) {
    let Some(broker) = Broker::start(test) else { return };
    let files = [data("btcusdt-usdm.log.zst")];
    let backtest = Backtest::of(&files).run();
    let job = Job::new(&broker.address(), "outage")
        .with_http()
        .with("KAFKA__START", "earliest")
        .with("JOB__DELIVERY", delivery)
        .with("KAFKA__PARTITIONS", "3");
    let mut running = Running::start(job.run(["-w", "2"]));
    let address = running.http();
    running.until("the job runs", |_| connected(address) == (200, true.into()));
    let replay = Running::start({
        let mut command = job.replay(&files);
        command.args(["--speed", "3"]);
        // A broker may take long to come back.
        command.env("FORESHOCK_KAFKA__STOP_TIMEOUT", "120s");
        command
    });
    let ticks = || stats(address)["counts"]["rows"]["ticks"].as_i64().unwrap();
    running.until("ticks flow", |_| ticks() > 1_000);

    end(&broker);
    running.until("the broker is missed", |_| connected(address) == (503, false.into()));
    assert!(http::get(address, "/health").1["reason"].as_str().unwrap().contains("no Kafka broker answers"));
    assert_eq!(http::get(address, "/ready").0, 200, "a restart would not help");
    broker.start_again();
    running.until("the broker is found again", |_| connected(address) == (200, true.into()));

    let fed = summary(&replay.end());
    assert_eq!((&fed["messages"], &fed["undelivered"]), (&backtest.summary["messages_in"], &0.into()));
    let all = fed["messages"].as_i64().unwrap();
    running.until("all is read", |_| stats(address)["counts"]["messages_in"] == all);
    let mut shown = Value::Null;
    running.until("nothing is left to read or commit", |_| {
        let stats = stats(address);
        if stats["shards"] != shown {
            // What is seen where this never comes true.
            eprintln!("of {all} messages: {}", stats["shards"]);
            shown = stats["shards"].clone();
        }
        (over_shards(&stats, "lag"), over_shards(&stats, "committed")) == (0, all)
    });
    running.signal("TERM");
    let ended = running.end();
    // The same process, from the first message to the last.
    assert_eq!(account(&summary(&ended)), backtest.account());
    // The second where the broker was away for longer than a transaction may take.
    let ways = ["Kafka brokers answer again", "beginning anew from what is committed"];
    assert!(ways.iter().any(|told| ended.stderr.contains(told)), "{}", ended.stderr);

    // Neither of the two repeated a message.
    assert_eq!(records(&job.brokers, &job.raw).concat().len() as i64, all);
    assert_same_lines(&lines(&backtest), &by_instrument(&job.all_outputs()), test);
}
