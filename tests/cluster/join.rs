//! Who joins, who doesn't, and how processes end with each other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::cluster::processes::{BEYOND, Hosts, SECRET, live};
use crate::support::process::{Running, await_that};
use crate::support::{Ended, Files, finish};

#[track_caller]
fn assert_ended(ended: &Ended, status: i32, text: &str) {
    assert_eq!(ended.status, Some(status), "{}", ended.stderr);
    assert!(ended.stderr.contains(text), "no {text:?} in {}", ended.stderr);
    assert!(!ended.stderr.contains(SECRET), "the secret is shown: {}", ended.stderr);
}

/// Standard output holds the account and nothing else, and standard error nothing but logs.
#[track_caller]
fn assert_clean(ended: &Ended) {
    let stdout = String::from_utf8_lossy(&ended.stdout);
    assert!(stdout.is_empty() || stdout.starts_with("messages "), "{stdout}");
    let is_log = |line: &&str| line.starts_with("20") || line.starts_with("error: ");
    let odd: Vec<&str> = ended.stderr.lines().filter(|line| !is_log(line)).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn a_stop_of_one_is_a_stop_of_all() {
    for stopped in [0, 1] {
        let both = Hosts::free().joined();
        both[stopped].signal("TERM");
        for process in both {
            let ended = process.end();
            assert_ended(&ended, 0, "stopped");
            assert_clean(&ended);
        }
    }
}

#[test]
fn signals_to_all_at_once_are_one_stop() {
    let both = Hosts::free().joined();
    both.iter().for_each(|process| process.signal("TERM"));
    both.into_iter().for_each(|process| assert_ended(&process.end(), 0, "stopped"));
}

#[test]
fn a_process_ends_with_one_that_was_killed_and_says_so() {
    for killed in [0, 1] {
        let hosts = Hosts::free();
        let mut both = hosts.joined().map(Some);
        both[killed].take().unwrap().signal("KILL");
        let killed_at = Instant::now();
        let ended = both[1 - killed].take().unwrap().end();
        assert!(killed_at.elapsed() < Duration::from_secs(10), "{:?}", killed_at.elapsed());
        assert_ended(&ended, 1, "lost a process of this job");
        assert_ended(&ended, 1, &format!("process={killed} address=\"{}\"", hosts.0[killed]));
        assert_clean(&ended);
    }
}

#[test]
fn a_missing_process_is_named() {
    for (present, missing) in [(0, 1), (1, 0)] {
        let hosts = Hosts::free();
        let mut command = hosts.process(present);
        command.env("FORESHOCK_CLUSTER__CONNECT_TIMEOUT", "1s");
        let ended = finish(command, None);
        assert_ended(&ended, 1, &format!("process {missing} at {} has not joined", hosts.0[missing]));
        assert_clean(&ended);
    }
}

#[test]
fn a_stop_ends_the_wait_for_others() {
    for number in [0, 1] {
        let mut waiting = Running::start(Hosts::free().process(number));
        waiting.until_logged("waiting for the other processes");
        waiting.signal("TERM");
        let asked = Instant::now();
        assert_ended(&waiting.end(), 0, "stopped before the others had come");
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
}

#[test]
fn another_secret_is_refused_and_the_right_one_still_joins() {
    let hosts = Hosts::free();
    let mut zero = Running::start(hosts.process(0));
    let mut command = hosts.process(1);
    command.env("FORESHOCK_CLUSTER_SECRET", "what a stranger has guessed");
    assert_ended(&finish(command, None), 2, "it has another secret");
    zero.until_logged("refused a connection");
    let mut one = Running::start(hosts.process(1));
    zero.until_logged(BEYOND);
    one.until_logged(BEYOND);
    one.signal("TERM");
    assert_ended(&one.end(), 0, "stopped");
    assert_ended(&zero.end(), 0, "it has another secret");
}

#[test]
fn strangers_are_refused_and_keep_nobody_out() {
    let hosts = Hosts::free();
    let mut zero = Running::start(hosts.process(0));
    zero.until_logged("waiting for the other processes");
    // Each of these would have been a process to timely, or its end.
    let say = |bytes: &[u8]| {
        let mut stranger = TcpStream::connect(&hosts.0[0]).unwrap();
        stranger.write_all(bytes).unwrap();
        stranger
    };
    let mut strangers = vec![say(&1_u64.to_be_bytes()), say(b"GET / HTTP/1.1\r\n\r\n"), say(&[0xff; 5_000])];
    for stranger in &mut strangers {
        stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Closed, one way or the other.
        assert!(matches!(stranger.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
    strangers.extend((0..10).map(|_| say(b"")));
    strangers.extend((0..10).map(|_| say(b"FORESHK\x01d")));
    let began = Instant::now();
    let mut one = Running::start(hosts.process(1));
    one.until_logged("a process has joined");
    zero.until_logged(BEYOND);
    // They may be silent for 5 s.
    assert!(began.elapsed() < Duration::from_secs(4), "silent strangers hold it up: {:?}", began.elapsed());
    one.signal("TERM");
    assert_ended(&one.end(), 0, "stopped");
    let ended = zero.end();
    assert_ended(&ended, 0, "it is no process of foreshock");
    assert_clean(&ended);
}

#[test]
fn more_silent_strangers_than_are_heard_at_a_time_go_away() {
    let hosts = Hosts::free();
    let mut zero = Running::start(hosts.process(0));
    zero.until_logged("waiting for the other processes");
    let strangers: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(&hosts.0[0]).unwrap()).collect();
    zero.until_logged("others have not said who they are");
    let one = Running::start(hosts.process(1));
    zero.until_logged(BEYOND);
    zero.until_logged("it did not say who it is in time");
    drop(strangers);
    one.signal("TERM");
    assert_ended(&one.end(), 0, "stopped");
    assert_ended(&zero.end(), 0, "stopped");
}

/// What both say when process 1 was started with this besides.
#[track_caller]
fn check_disagreement(change: &dyn Fn(&mut std::process::Command), texts: [&str; 2]) {
    let hosts = Hosts::free();
    let zero = Running::start(hosts.process(0));
    let mut command = hosts.process(1);
    change(&mut command);
    let one = finish(command, None);
    for (ended, text) in [zero.end(), one].iter().zip(texts) {
        assert_ended(ended, 2, text);
        assert_clean(ended);
    }
}

#[test]
fn disagreements_are_told_on_both_sides() {
    check_disagreement(
        &|one| {
            one.env("FORESHOCK_JOB__NAME", "other");
        },
        [
            "process 1 runs the job other, and this one, process 0, foreshock",
            "process 0 runs the job foreshock",
        ],
    );
    check_disagreement(
        &|one| {
            one.env("FORESHOCK_ZSCORE__WINDOW", "301");
        },
        ["process 1 has other settings", "process 0 has other settings"],
    );
    check_disagreement(
        &|one| {
            one.arg("--until-end");
        },
        ["process 1 has other settings", "process 0 has other settings"],
    );
}

#[test]
fn workers_must_be_as_many_everywhere() {
    let hosts = Hosts::free();
    let zero = Running::start(hosts.process(0));
    let mut one = live("run");
    one.args(["-n", "2", "-w", "3", "-p", "1", "--hosts", &hosts.0.join(",")]);
    one.env("FORESHOCK_CLUSTER_SECRET", SECRET);
    assert_ended(&finish(one, None), 2, "process 0 runs with 1 workers, and this one, process 1, 3 workers");
    assert_ended(&zero.end(), 2, "process 1 runs with 3 workers, and this one, process 0, 1 workers");
}

#[test]
fn without_a_secret_nobody_joins() {
    let hosts = Hosts::free();
    let mut command = hosts.process(0);
    command.env_remove("FORESHOCK_CLUSTER_SECRET");
    assert_ended(&finish(command, None), 2, "head -c 32 /dev/urandom");
    let mut command = hosts.process(0);
    command.env("FORESHOCK_CLUSTER_SECRET", "short");
    assert_ended(&finish(command, None), 2, "expected 16 or more");
}

#[test]
fn hosts_and_secret_may_be_in_files() {
    let files = Files::new();
    let hosts = Hosts::free();
    let hostfile = files.add("hosts", format!("# ours\n{}\n\n{} # the second\n", hosts.0[0], hosts.0[1]));
    files.add("secret", format!("{SECRET}\n"));
    let config = files.add("job.yaml", "cluster:\n  secret_file: secret\n");
    let both = [0, 1].map(|number| {
        let mut command = live("run");
        command.args(["-n", "2", "-w", "1", "-p", &number.to_string(), "--hostfile"]).arg(&hostfile);
        command.arg("--config").arg(&config);
        command
    });
    let mut both = both.map(Running::start);
    both[0].until_logged(BEYOND);
    both[1].signal("TERM");
    both.into_iter().for_each(|process| assert_ended(&process.end(), 0, "stopped"));
    let mut third = live("run");
    third.args(["-n", "3", "-p", "0", "--hostfile"]).arg(&hostfile);
    assert_ended(&finish(third, None), 2, "names 2 addresses, and the job has 3 processes");
}

#[test]
fn a_port_beyond_this_machine_is_opened_only_when_named_and_told() {
    let hosts = Hosts::free();
    let everywhere = hosts.0[0].replace("127.0.0.1", "0.0.0.0");
    let mut command = hosts.process(0);
    command.args(["--bind", &everywhere]);
    let mut zero = Running::start(command);
    zero.until_logged("is not encrypted");
    let one = Running::start(hosts.process(1));
    zero.until_logged(BEYOND);
    zero.signal("TERM");
    assert_ended(&zero.end(), 0, &format!("address={everywhere}"));
    let ended = one.end();
    assert_ended(&ended, 0, "stopped");
    assert!(!ended.stderr.contains("is not encrypted"), "{}", ended.stderr);
}

#[test]
fn a_number_beyond_the_last_is_refused() {
    let mut command = live("run");
    command.args(["-n", "2", "-p", "2"]);
    assert_ended(&finish(command, None), 2, "there is no process 2 among 2");
}

#[test]
fn a_port_in_use_is_named() {
    let hosts = Hosts::free();
    let _taken = std::net::TcpListener::bind(&hosts.0[0]).unwrap();
    assert_ended(&finish(hosts.process(0), None), 1, &format!("could not listen at {}", hosts.0[0]));
}

#[test]
fn a_process_that_starts_again_before_all_have_come_takes_its_place() {
    let hosts = Hosts::free();
    let mut zero = Running::start(with_three(&hosts, 0));
    let mut one = Running::start(with_three(&hosts, 1));
    one.until_logged("a process has joined");
    zero.until_logged("process=1");
    one.signal("KILL");
    await_that("its end", || !one.is_running());
    let mut one = Running::start(with_three(&hosts, 1));
    zero.until_logged("a process came again");
    one.until_logged("a process has joined");
    zero.signal("TERM");
    assert_ended(&zero.end(), 0, "stopped before");
    one.signal("TERM");
    assert_ended(&one.end(), 0, "stopped before");
}

/// One of three processes, of which the last never comes.
fn with_three(hosts: &Hosts, number: usize) -> std::process::Command {
    let mut command = live("run");
    let addresses = format!("{},127.0.0.1:9", hosts.0.join(","));
    command.args(["-n", "3", "-w", "1", "-p", &number.to_string(), "--hosts", &addresses]);
    command.env("FORESHOCK_CLUSTER_SECRET", SECRET);
    command
}
