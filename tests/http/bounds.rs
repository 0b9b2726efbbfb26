//! Clients that are slow or large are cut off. Most tests have a single connection to give: nothing but probes is
//! served beside it, so the bad one has it for as long as it is not cut off (`overflow.rs`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use foreshock::config::Http;
use foreshock::http::Server;

use crate::http::client::{Asked, Connection, PATIENCE, serving, settings};

/// A server with one connection to give and little patience.
fn impatient() -> Asked {
    let settings = Http { max_connections: 1, timeout: Duration::from_millis(500), ..settings() };
    Asked::with(settings, Some(serving(None, &[])))
}

#[test]
fn a_client_that_sends_nothing_is_cut_off() {
    let asked = impatient();
    let mut silent = asked.connect();
    asked.get("/health").ok();
    assert!(silent.is_closed());
}

#[test]
fn a_client_that_never_ends_its_head_is_cut_off() {
    let asked = impatient();
    let mut slow = asked.connect();
    slow.send("GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ");
    asked.get("/health").ok();
    assert!(slow.is_closed());
}

#[test]
fn a_client_that_never_ends_its_body_is_told_and_cut_off() {
    let asked = impatient();
    let mut slow = asked.connect();
    slow.send("POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{\"n\"");
    asked.get("/health").ok();
    assert_eq!(slow.answer(false).error(408).0, "the body did not arrive within 500ms (http.timeout)");
    assert!(slow.is_closed());
}

#[test]
fn a_client_that_keeps_its_connection_idle_is_cut_off() {
    let asked = impatient();
    let mut idle = asked.connect();
    idle.ask("GET", "/health", b"").ok();
    asked.get("/health").ok();
    assert!(idle.is_closed());
}

#[test]
fn a_client_that_does_not_take_its_answers_is_cut_off() {
    let asked = impatient();
    let mut deaf = asked.connect();
    // Far more than fits in the buffers between us.
    deaf.send("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(40));
    // It has its place when another one, who came later, is answered.
    asked.get("/health").ok();
    let deadline = Instant::now() + PATIENCE;
    while asked.metrics.http.connections.get() > 0 {
        assert!(Instant::now() < deadline, "it is not cut off");
        thread::sleep(Duration::from_millis(5));
    }
    let length = deaf.answer(false).body.len();
    let (mut taken, mut part) = (0, vec![0; 1 << 16]);
    while let Ok(read @ 1..) = deaf.stream.read(&mut part) {
        taken += read;
    }
    assert!(taken < 39 * length, "all of it came");
}

#[test]
fn slow_clients_do_not_hold_up_others() {
    let asked = Asked::start();
    let mut slow: Vec<Connection> = (0..8).map(|_| asked.connect()).collect();
    for connection in &mut slow {
        connection.send("POST /predict HTTP/1.1\r\nhost: x\r\ncontent-le");
    }
    asked.get("/health").ok();
    for connection in &mut slow {
        connection.send("ngth: 2\r\n\r\n{}");
        connection.answer(false).ok();
    }
}

#[test]
fn a_body_has_a_largest_size() {
    let asked = Asked::with(Http { max_body_bytes: 1000, ..settings() }, Some(serving(None, &[])));
    let body = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
    let error = "the body is too large, expected at most 1000 bytes (http.max_body_bytes)";
    let mut connection = asked.connect();
    connection.ask("POST", "/predict", body(1000).as_bytes()).ok();
    assert_eq!(connection.ask("POST", "/predict", body(1001).as_bytes()).error(413).0, error);
    // The connection is still good, and a client that sends all before it reads sees the answer.
    assert_eq!(connection.ask("POST", "/predict", body(5 << 20).as_bytes()).error(413).0, error);
    connection.ask("POST", "/predict", body(1000).as_bytes()).ok();

    let mut chunked = asked.connect();
    chunked.send("POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        chunked.send(format!("190\r\n{}\r\n", " ".repeat(400)));
    }
    chunked.send("0\r\n\r\n");
    assert_eq!(chunked.answer(false).error(413).0, error);

    let mut huge = asked.connect();
    huge.send("POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n");
    assert_eq!(huge.answer(false).error(413).0, error);
}

#[test]
fn a_list_has_a_most_rows() {
    let asked = Asked::with(Http { max_rows: 3, ..settings() }, Some(serving(None, &[])));
    asked.predict(r#"{"rows": [{}, {}, {}]}"#).ok();
    let (error, field) = asked.predict(r#"{"rows": [{}, {}, {}, {}, {}]}"#).error(400);
    assert_eq!(error, "rows: found more than 3 rows, expected at most 3 (http.max_rows)");
    assert_eq!(field.as_deref(), Some("rows"));
}

#[test]
fn a_head_has_a_largest_size() {
    let asked = Asked::start();
    let mut connection = asked.connect();
    connection.ask_with("GET", "/health", &format!("x-long: {}\r\n", "x".repeat(20_000)), b"").ok();
    let mut long = asked.connect();
    long.send("GET /health HTTP/1.1\r\nx-long: ");
    // The server may have closed before all of it is sent.
    let _ = long.stream.get_mut().write_all(&[b'x'; 100_000]);
    let mut answer = Vec::new();
    let _ = long.stream.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let mut many = asked.connect();
    many.send(format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101)));
    assert_eq!(many.answer(false).status, 431);
}

#[test]
fn what_is_no_http_is_refused() {
    let asked = Asked::start();
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
        let mut connection = asked.connect();
        connection.send(bytes);
        assert!(matches!(connection.answer(false).status, 400 | 505));
    }
    asked.get("/health").ok();
}

#[test]
fn a_client_may_close_its_half() {
    let asked = Asked::start();
    let length = asked.get("/docs/swagger-ui-bundle.js").body.len();
    let mut connection = asked.connect();
    connection.send("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(connection.answer(false).body.len(), length);
    assert!(connection.is_closed());
}

#[test]
fn requests_may_follow_each_other_without_waiting() {
    let asked = Asked::start();
    let mut connection = asked.connect();
    connection.send("GET /version HTTP/1.1\r\nhost: x\r\n\r\nHEAD /version HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.send("GET /none HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.answer(false).ok();
    assert_eq!(connection.answer(true).status, 200);
    connection.answer(false).error(404);
}

#[test]
fn a_port_in_use_is_an_error_at_once() {
    let asked = Asked::start();
    let listen = asked.server.address();
    let error =
        Server::start(&Http { listen, ..settings() }, asked.job_status.clone(), asked.metrics.clone())
            .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with(&format!("could not listen at {listen}: ")), "{text}");
    assert!(text.ends_with("; set http.listen to another port"), "{text}");
}

#[test]
fn a_stop_lets_requests_finish() {
    let asked = Asked::start();
    let address = asked.server.address();
    let mut idle = asked.connect();
    idle.ask("GET", "/health", b"").ok();
    let mut busy = asked.connect();
    busy.send("POST /predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(busy.answer(true).status, 100);
    let stop = thread::spawn(move || asked.server.stop());
    assert!(idle.is_closed());
    while TcpStream::connect(address).is_ok() {
        thread::yield_now();
    }
    busy.send("{}");
    busy.answer(false).ok();
    assert!(busy.is_closed());
    stop.join().unwrap();
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let asked = Asked::start();
    let mut slow = asked.connect();
    slow.send("POST /predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(slow.answer(true).status, 100);
    let address = asked.server.address();
    asked.server.stop();
    assert!(slow.is_closed());
    Server::start(&Http { listen: address, ..settings() }, asked.job_status, asked.metrics).unwrap().stop();
}
