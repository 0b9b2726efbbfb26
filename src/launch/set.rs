//! The processes of one job on one machine, from their start to the end of the last.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracing::{info, warn};

use super::parent::{ProcessReport, STOP, SupervisorMessage};

/// How long processes may take to end by themselves when one has died: their own log still says why.
const GRACE: Duration = Duration::from_secs(5);

/// How often they are looked at.
const TICK: Duration = Duration::from_millis(20);

/// A longer line of a log is cut.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// The processes of one job.
pub struct Set {
    members: Vec<Member>,
    /// When all of them ran.
    up_at: Option<Instant>,
}

struct Member {
    process: usize,
    child: Child,
    /// `None` once nothing more can be said.
    orders: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

#[derive(Default)]
struct Heard {
    running: bool,
    account: Option<ProcessReport>,
}

/// How a set ended.
pub enum End {
    /// All ended in order.
    InOrder(Vec<ProcessReport>),
    /// This one died first.
    Died { process: usize, how: String, stays_down: Option<u8> },
    /// It took too long.
    TooSlow,
}

impl Set {
    /// Starts all; where one can't be started none is left.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start(commands: Vec<Command>, json: bool) -> Result<Set> {
        let mut set = Set { members: Vec::new(), up_at: None };
        for (process, command) in commands.into_iter().enumerate() {
            let member = Member::start(process, command, json);
            set.members.push(member.with_context(|| format!("could not start process {process}"))?);
        }
        Ok(set)
    }

    /// Looks after them until all have ended. `should_stop` has them end, within this time. `on_begun` is called when
    /// the first has begun.
    pub fn watch(
        &mut self,
        should_stop: impl Fn() -> bool,
        within: Duration,
        mut on_begun: impl FnMut(),
    ) -> End {
        let mut deadline: Option<Instant> = None;
        let mut is_told = false;
        loop {
            self.members.iter_mut().for_each(Member::look);
            if self.members.iter().any(|member| member.heard().running) {
                on_begun();
            }
            if self.up_at.is_none() && self.members.iter().all(|member| member.heard().running) {
                self.up_at = Some(Instant::now());
                info!(processes = self.members.len(), "all processes run");
            }
            if let Some((process, how)) = self.first_dead() {
                return self.end_rest(process, how);
            }
            if self.members.iter().all(|member| member.status.is_some()) {
                return End::InOrder(self.accounts());
            }
            if !is_told && should_stop() {
                info!("stopping: all processes deliver what was begun; a second signal ends them at once");
                self.members.iter_mut().for_each(Member::order_stop);
                is_told = true;
            }
            // One that has ended in order has told the others to, or had no more to read as they.
            if is_told || self.members.iter().any(|member| member.status.is_some()) {
                let deadline = *deadline.get_or_insert(Instant::now() + within);
                if Instant::now() >= deadline {
                    warn!(seconds = within.as_secs(), "processes have not ended in time; killing them");
                    self.kill();
                    return End::TooSlow;
                }
            }
            thread::sleep(TICK);
        }
    }

    /// For how long all have run.
    pub fn up_for(&self) -> Duration {
        self.up_at.map(|at| at.elapsed()).unwrap_or_default()
    }

    fn first_dead(&self) -> Option<(usize, String)> {
        let dead = |member: &&Member| member.status.is_some_and(|status| !status.success());
        let member = self.members.iter().find(dead)?;
        Some((member.process, member.status?.to_string()))
    }

    /// Waits for the rest to follow one that died, and kills those that don't.
    fn end_rest(&mut self, process: usize, how: String) -> End {
        self.members.iter_mut().for_each(Member::order_stop);
        let deadline = Instant::now() + GRACE;
        while self.members.iter().any(|member| member.status.is_none()) && Instant::now() < deadline {
            thread::sleep(TICK);
            self.members.iter_mut().for_each(Member::look);
        }
        self.kill();
        // The first to be seen dead may have followed another.
        let final_word = self.members.iter().find_map(|member| {
            let code = u8::try_from(member.status?.code()?).ok()?;
            super::STAY_DOWN.contains(&code).then_some((member.process, code))
        });
        match final_word {
            Some((process, code)) => {
                End::Died { process, how: format!("exit status: {code}"), stays_down: Some(code) }
            }
            None => End::Died { process, how, stays_down: None },
        }
    }

    fn kill(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
    }

    fn accounts(&mut self) -> Vec<ProcessReport> {
        self.members.iter_mut().for_each(Member::finish);
        self.members.iter().filter_map(|member| member.heard().account.clone()).collect()
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Member {
    fn start(process: usize, mut command: Command, json: bool) -> Result<Member> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        info!(process, pid = child.id(), "started a process");
        let orders = child.stdin.take();
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let (news, log) = (child.stdout.take(), child.stderr.take());
        // Made before the threads: whatever fails now, the process is ended.
        let mut member =
            Member { process, child, orders, heard: heard.clone(), readers: Vec::new(), status: None };
        let named = |what: &str| thread::Builder::new().name(format!("{what} {process}"));
        if let Some(news) = news {
            member.readers.push(named("news").spawn(move || hear(news, &heard))?);
        }
        if let Some(log) = log {
            member.readers.push(named("log").spawn(move || pass_on(log, process, json))?);
        }
        Ok(member)
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&mut self) {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
    }

    fn order_stop(&mut self) {
        if let Some(orders) = &mut self.orders {
            // One that is gone needs no order.
            let _ = orders.write_all(STOP.as_bytes()).and_then(|()| orders.flush());
        }
    }

    fn kill(&mut self) {
        if self.status.is_none() {
            // It may have ended by itself.
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
        self.finish();
    }

    /// Reads what an ended process still had to say.
    fn finish(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

fn hear(from: impl Read, into: &Mutex<Heard>) {
    for_each_line(from, |line| {
        let Ok(news) = serde_json::from_slice(line) else { return };
        let mut heard = into.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            SupervisorMessage::Running => heard.running = true,
            SupervisorMessage::Ended(account) => heard.account = Some(*account),
        }
    });
}

/// Passes a process's log on, with its number in each line.
fn pass_on(from: impl Read, process: usize, json: bool) {
    for_each_line(from, |line| {
        // Whole, so that lines of two processes don't mix; nobody is left to tell when standard error is gone.
        let _ = io::stderr().lock().write_all(&marked(line, process, json));
    });
}

fn for_each_line(from: impl Read, mut take: impl FnMut(&[u8])) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        take(line.trim_ascii_end());
        line.clear();
    }
}

/// A line of a process's log with its number: in front, or as a field where logs are JSON.
fn marked(line: &[u8], process: usize, json: bool) -> Vec<u8> {
    let mut marked = Vec::with_capacity(line.len() + 32);
    match line.strip_prefix(b"{") {
        Some(fields) if json => {
            marked.extend(format!("{{\"process\":{process},").bytes());
            marked.extend(fields);
        }
        _ if json => {
            let text = String::from_utf8_lossy(line);
            let whole =
                serde_json::json!({ "process": process, "level": "ERROR", "fields": { "message": text } });
            marked.extend(whole.to_string().bytes());
        }
        _ => {
            marked.extend(format!("p{process} ").bytes());
            marked.extend(line);
        }
    }
    marked.push(b'\n');
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn watch(scripts: &[&str]) -> End {
        let mut set = Set::start(scripts.iter().map(|script| shell(script)).collect(), false).unwrap();
        set.watch(|| false, Duration::from_secs(30), || {})
    }

    #[test]
    fn the_final_word_of_any_process_counts() {
        // The first to die only follows the one that says so.
        let end = watch(&["exit 1", "sleep 1; exit 4"]);
        let End::Died { process: 1, stays_down: Some(4), .. } = end else { panic!("it goes on") };
    }

    #[test]
    fn those_who_do_not_follow_a_dead_one_are_killed() {
        let End::Died { process: 0, stays_down: None, how } = watch(&["exit 3", "exec sleep 1000"]) else {
            panic!("it stays down")
        };
        assert!(how.contains('3'), "{how}");
    }

    #[test]
    fn processes_that_end_in_order_end_the_set() {
        assert!(matches!(watch(&["exit 0", "exit 0"]), End::InOrder(_)));
    }

    #[test]
    fn lines_carry_their_process() {
        let shown = |line: &str, json| String::from_utf8(marked(line.as_bytes(), 3, json)).unwrap();
        assert_eq!(shown("INFO starting", false), "p3 INFO starting\n");
        assert_eq!(shown(r#"{"level":"INFO"}"#, true), "{\"process\":3,\"level\":\"INFO\"}\n");
        let whole = shown("error: \"no\"", true);
        let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(whole["fields"]["message"], "error: \"no\"");
    }
}
