//! `foreshock launch`: it starts all, restarts all, ends all, and leaves nobody behind.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cluster::processes::{BEYOND, live};
use crate::support::finish;
use crate::support::process::{Running, await_that};

/// A job of two processes that have both joined.
#[track_caller]
fn launched(args: &[&str]) -> Running {
    let mut command = live("launch");
    command.args(["-n", "2", "-w", "1"]).args(args);
    let mut launch = Running::start(command);
    launch.until("both to have joined", |launch| launch.log().matches(BEYOND).count() == 2);
    launch
}

/// The numbers that the system has for the processes that were started, in their order.
fn pids(log: &str) -> Vec<u32> {
    let started = log.lines().filter(|line| line.contains("started a process"));
    started.map(|line| line.split("pid=").nth(1).unwrap().trim().parse().unwrap()).collect()
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    // A zombie has ended.
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_ends_all_in_order_and_their_account_is_one() {
    for signal in ["TERM", "INT"] {
        let launch = launched(&["--json"]);
        let pids = pids(&launch.log());
        assert_eq!(pids.len(), 2);
        launch.signal(signal);
        let ended = launch.end();
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        assert!(!pids.iter().any(|pid| is_running(*pid)));
        let account: Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(account["messages_in"], 0);
        for process in ["p0 ", "p1 "] {
            assert!(ended.stderr.lines().any(|line| line.starts_with(process)), "{}", ended.stderr);
        }
    }
}

#[test]
fn a_killed_supervisor_leaves_nobody_behind() {
    let launch = launched(&[]);
    let pids = pids(&launch.log());
    launch.signal("KILL");
    await_that("the end of the processes", || !pids.iter().any(|pid| is_running(*pid)));
}

#[test]
fn all_come_back_when_one_is_killed_with_another_secret_and_ports() {
    let mut launch = launched(&[]);
    for (round, victim) in [(1, 0), (2, 3)] {
        kill("-KILL", pids(&launch.log())[victim]);
        launch.until("a new set", |launch| {
            pids(&launch.log()).len() == 2 * (round + 1)
                && launch.log().matches(BEYOND).count() == 2 * (round + 1)
        });
        let log = launch.log();
        assert!(log.contains("a process died"), "{log}");
        let all = pids(&log);
        assert!(!all[..2 * round].iter().any(|pid| is_running(*pid)), "some of an earlier set are left");
    }
    launch.signal("TERM");
    assert_eq!(launch.end().status, Some(0));
}

#[test]
fn a_stop_of_one_process_ends_the_job_in_order() {
    let launch = launched(&[]);
    kill("-TERM", pids(&launch.log())[1]);
    let ended = launch.end();
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert_eq!(pids(&ended.stderr).len(), 2, "they were not started again");
}

#[test]
fn one_process_is_supervised_too() {
    let mut command = live("launch");
    command.args(["-n", "1", "-w", "1"]);
    let mut launch = Running::start(command);
    launch.until_logged(BEYOND);
    kill("-KILL", pids(&launch.log())[0]);
    launch.until("a new start", |launch| pids(&launch.log()).len() == 2);
    launch.signal("TERM");
    assert_eq!(launch.end().status, Some(0));
}

#[test]
fn what_is_wrong_with_the_configuration_is_told_once() {
    let mut command = live("launch");
    command.args(["-n", "2"]).env("FORESHOCK_ZSCORE__WINDOW", "many");
    let ended = finish(command, None);
    assert_eq!(ended.status, Some(2), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("FORESHOCK_ZSCORE__WINDOW").count(), 1, "{}", ended.stderr);
}

#[test]
fn logs_may_be_json() {
    let mut command = live("launch");
    command.args(["-n", "2", "-w", "1"]).env("FORESHOCK_LOG__FORMAT", "json");
    let mut launch = Running::start(command);
    launch.until_logged(BEYOND);
    launch.signal("TERM");
    let ended = launch.end();
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let lines = ended.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of: Vec<Value> = lines.map(|line| line["process"].clone()).collect();
    assert!(of.contains(&0.into()) && of.contains(&1.into()) && of.contains(&Value::Null), "{of:?}");
}

#[test]
fn each_process_has_an_http_server_of_its_own() {
    let mut command = live("launch");
    command.args(["-n", "2", "-w", "1"]).env("FORESHOCK_HTTP__LISTEN", "127.0.0.1:0");
    let mut launch = Running::start(command);
    launch.until("two servers", |launch| launch.log().matches("http server listens").count() == 2);
    launch.signal("TERM");
    assert_eq!(launch.end().status, Some(0));
}
