//! Outputs that don't get away: the input waits, and memory stays within its bound.

use super::{Kept, create, metric};

use crate::kafka::job::{send_quotes, stats, summary};
use crate::support::finish;
use crate::support::kafka::{brokers, committed};
use crate::support::process::Running;

/// Their outputs are some hundred bytes each, so ten times the budget.
const ROWS: u64 = 100_000;

#[test]
fn reading_stops_while_outputs_cannot_leave() {
    let Some(brokers) = brokers("reading_stops_while_outputs_cannot_leave") else { return };
    let kept = Kept::new(&brokers, "lingering");
    let job = kept.with("JOB__MEMORY_BUDGET", "8MiB");
    create(&brokers, &job.raw, 1, &[]);
    send_quotes(&job, 0, 0..ROWS);
    let lingering = job.clone().with_http().with("KAFKA__TRANSACTION_TIMEOUT", "10m").with(
        "KAFKA__PRODUCER_PROPERTIES",
        "linger.ms=500000,batch.num.messages=1000000,batch.size=100000000",
    );
    let mut running = Running::start(lingering.run(["-w", "1"]));
    let address = running.http();
    let position = || stats(address)["shards"][0]["position"].as_i64();
    let waits = || metric(address, "foreshock_backlog_waits_total{worker=\"0\"}");
    running.until("the backlog is full", |_| waits_are_told(address) && waits() > 0.0);
    let (mut stood_at, mut waited) = (position(), waits());
    running.until("reading stands still", |_| {
        let (moved, again) = (position() != stood_at, waits() > waited + 500.0);
        if moved {
            (stood_at, waited) = (position(), waits());
        }
        !moved && again
    });
    let stood_at = stood_at.unwrap();
    assert!((1..ROWS as i64).contains(&stood_at), "{stood_at}");
    assert!(metric(address, "foreshock_in_flight_epochs{worker=\"0\"}") > 0.0);
    let backlog = metric(address, "foreshock_backlog_bytes{worker=\"0\"}");
    assert!(backlog > 0.0 && backlog < 8_388_608.0, "{backlog}");
    let resident = metric(address, "process_resident_memory_bytes");
    assert!(resident < 100e6, "{resident} bytes of memory");
    assert_eq!(committed(&brokers, &job.name, &job.raw), [Some(0)], "what has not left is not committed");

    running.signal("KILL");
    running.end();
    let account = summary(&finish(job.run(["--until-end", "-w", "1"]), None));
    assert_eq!((&account["messages_in"], &account["predictions"]), (&ROWS.into(), &ROWS.into()));
}

/// Workers have counted something.
fn waits_are_told(address: std::net::SocketAddr) -> bool {
    let (_, text) = crate::support::http::ask(address, "GET", "/metrics", "").unwrap();
    text.contains("foreshock_backlog_waits_total{")
}
