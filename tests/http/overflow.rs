//! Whatever clients do with their connections, probes are answered.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use foreshock::config::Http;

use crate::http::client::{Asked, Connection, PATIENCE, serving, settings};

const FULL: &str = "2 connections are open, the most there may be (http.max_connections): ";
const PROBES: [&str; 4] = ["/health", "/ready", "/version", "/metrics"];

/// A server of which all connections are taken, and those.
fn full() -> (Asked, Vec<Connection>) {
    let settings = Http { max_connections: 2, probe_connections: 4, ..settings() };
    let asked = Asked::with(settings, Some(serving(None, &[])));
    let mut held: Vec<Connection> = (0..2).map(|_| asked.connect()).collect();
    held.iter_mut().for_each(|connection| drop(connection.ask("GET", "/version", b"").ok()));
    (asked, held)
}

/// How many were turned away for a reason.
fn turned_away(asked: &Asked, reason: &str) -> u64 {
    let scrape = asked.get("/metrics");
    let name = format!("foreshock_http_turned_away_total{{reason=\"{reason}\"}} ");
    scrape.text().lines().find_map(|line| line.strip_prefix(&*name)).unwrap().parse().unwrap()
}

/// Asks for health as an orchestrator does.
#[track_caller]
fn probe(asked: &Asked) {
    asked.get("/health").ok();
}

#[test]
fn probes_are_answered_while_all_connections_are_taken() {
    let (asked, mut held) = full();
    for round in 1..=20 {
        for path in PROBES {
            for method in ["GET", "HEAD"] {
                let mut connection = asked.connect();
                let answer = connection.ask(method, path, b"");
                assert_eq!(
                    (answer.status, answer.header("connection")),
                    (200, Some("close")),
                    "{method} {path}"
                );
                assert!(connection.is_closed(), "{method} {path}");
            }
        }
        assert_eq!(asked.metrics.http.connections.get(), 2);
        assert_eq!(asked.metrics.http.connections_full.get(), 8 * round);
    }
    let deadline = Instant::now() + PATIENCE;
    while asked.metrics.http.probe_connections.get() != 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    held.iter_mut().for_each(|connection| drop(connection.ask("POST", "/predict", b"{}").ok()));
    assert_eq!(turned_away(&asked, "no_probe"), 0);
    let scrape = asked.get("/metrics");
    assert!(!scrape.text().contains("\nforeshock_http_probe_connections 0\n"), "its own is one of them");
    assert!(
        scrape.text().contains("http_requests_total{endpoint=\"/health\",method=\"HEAD\",status=\"200\"} 20")
    );
}

#[test]
fn all_else_is_told_to_come_later() {
    let (asked, mut held) = full();
    let error =
        format!("{FULL}/health, /ready, /version and /metrics alone are answered now; try again later");
    let large = vec![b' '; 200_000];
    let requests: [(&str, &str, &[u8]); 6] = [
        ("GET", "/", b""),
        ("GET", "/stats", b""),
        ("GET", "/healthy", b""),
        ("POST", "/predict", b"{}"),
        ("POST", "/predict", &large),
        ("BREW", "/docs", b""),
    ];
    for (method, path, body) in requests {
        let mut connection = asked.connect();
        let answer = connection.ask(method, path, body);
        assert_eq!(answer.header("retry-after"), Some("1"), "{method} {path}");
        assert_eq!(answer.error(503).0, error, "{method} {path}");
    }
    assert_eq!(turned_away(&asked, "no_probe"), 6);
    let answer = asked.connect().ask("POST", "/health", b"{}");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
    held.iter_mut().for_each(|connection| drop(connection.ask("GET", "/stats", b"").ok()));
}

#[test]
fn a_place_that_is_given_back_is_the_next_ones() {
    let (asked, mut held) = full();
    for _ in 0..20 {
        drop(held.pop());
        let deadline = Instant::now() + PATIENCE;
        while asked.metrics.http.connections.get() == 2 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        let mut next = asked.connect();
        next.ask("POST", "/predict", b"{}").ok();
        next.ask("GET", "/stats", b"").ok();
        held.push(next);
    }
}

#[test]
fn a_place_that_becomes_free_while_a_request_arrives_is_taken() {
    let (asked, mut held) = full();
    let mut slow = asked.connect();
    slow.send("POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n");
    drop(held.pop());
    let deadline = Instant::now() + PATIENCE;
    while asked.metrics.http.connections.get() == 2 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    slow.send("\r\n{}");
    let answer = slow.answer(false);
    // On a machine so slow that a second had passed it was turned away.
    if answer.status != 503 {
        answer.ok();
        slow.ask("GET", "/stats", b"").ok();
    }
}

#[test]
fn connections_that_say_nothing_are_displaced_and_cut_off() {
    let (asked, _held) = full();
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.extend((0..10).map(|_| asked.connect()));
        probe(&asked);
        assert!(asked.metrics.http.probe_connections.get() <= 5);
    }
    for mut connection in silent {
        assert!(connection.is_closed());
    }
    assert!(turned_away(&asked, "displaced") + turned_away(&asked, "slow") >= 100);
}

#[test]
fn heads_that_never_end_are_displaced_and_told() {
    let (asked, _held) = full();
    let mut slow: Vec<Connection> = (0..12)
        .map(|_| {
            let mut connection = asked.connect();
            connection.send("GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ");
            connection
        })
        .collect();
    probe(&asked);
    let told = slow.pop().unwrap().answer(false);
    assert_eq!(told.header("connection"), Some("close"));
    assert_eq!(
        told.error(503).0,
        format!("{FULL}the request's head did not arrive within 1s; try again later")
    );
    probe(&asked);
}

#[test]
fn heads_are_looked_at_up_to_a_size() {
    let (asked, _held) = full();
    let headers = |length: usize| format!("x-long: {}\r\n", "x".repeat(length));
    asked.connect().ask_with("GET", "/health", &headers(7 << 10), b"").ok();
    for length in [8 << 10, 20 << 10, 500 << 10] {
        let answer = asked.connect().ask_with("GET", "/health", &headers(length), b"");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(
            answer.error(503).0,
            format!("{FULL}of a request's head 8 KiB are read now; try again later")
        );
    }
    let mut endless = asked.connect();
    while endless.stream.get_mut().write_all(&[b'x'; 1 << 16]).is_ok() {}
    assert_eq!(turned_away(&asked, "large_head"), 4);
}

#[test]
fn answers_that_nobody_takes_keep_no_place() {
    let (asked, _held) = full();
    let deaf: Vec<Connection> = (0..40)
        .map(|_| {
            let mut connection = asked.connect();
            connection.send("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20));
            connection
        })
        .collect();
    probe(&asked);
    drop(deaf);
    probe(&asked);
}

#[test]
fn requests_in_any_shape_are_answered_once() {
    let (asked, _held) = full();
    let check = |bytes: &str| {
        let mut connection = asked.connect();
        connection.send(bytes);
        connection.answer(false).ok();
        assert!(connection.is_closed(), "{bytes:?}");
    };
    check("GET /health HTTP/1.0\r\n\r\n");
    check("GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    check("GET /health HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n");
    check("\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    check("GET /health?verbose HTTP/1.1\r\nhost: x\r\n\r\n");
    check("GET http://x/health HTTP/1.1\r\nhost: x\r\n\r\n");
    check("GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello");
    check("GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /ready HTTP/1.1\r\nhost: x\r\n\r\n");

    let mut bytewise = asked.connect();
    for byte in "GET /health HTTP/1.1\r\nhost: x\r\n\r\n".bytes() {
        bytewise.send([byte]);
    }
    bytewise.answer(false).ok();

    let mut half = asked.connect();
    half.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    half.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    half.answer(false).ok();
    assert!(half.is_closed());

    for bytes in [&b""[..], b"GET /hea"] {
        let mut gone = asked.connect();
        gone.send(bytes);
        gone.stream.get_ref().shutdown(Shutdown::Write).unwrap();
        assert!(gone.is_closed());
    }
    for bytes in [&b"\x16\x03\x01\n\n"[..], b"hello\r\n\r\n"] {
        let mut connection = asked.connect();
        connection.send(bytes);
        assert_eq!(connection.answer(false).status, 400);
    }
    probe(&asked);
}

#[test]
fn a_stop_does_not_wait_for_them() {
    let (asked, mut held) = full();
    let mut silent = asked.connect();
    probe(&asked);
    asked.server.stop();
    let mut rest = Vec::new();
    assert_eq!(silent.stream.get_mut().read_to_end(&mut rest).unwrap_or(0), 0);
    assert!(held.iter_mut().all(Connection::is_closed));
}
