//! Where the processes of a job are: one address a line, that of process 0 first.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::documents::kind::is_address;
use crate::misuse::Misuse;

/// The port of process 0 where no hosts are named; the next ones have the next.
const FIRST_PORT: usize = 2101;

/// A host file is a few lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The addresses of so many processes on this machine.
pub fn local(processes: usize) -> Vec<String> {
    (0..processes).map(|process| format!("127.0.0.1:{}", FIRST_PORT + process)).collect()
}

/// Reads a host file; lines behind those of the job's processes are left for larger jobs.
///
/// # Errors
/// When it can't be read, names fewer processes, or a line is no address.
pub fn read(path: &Path, processes: usize) -> Result<Vec<String>> {
    let what = || format!("could not read the host file {path:?}");
    let size = fs::metadata(path).with_context(what)?.len();
    if size > FILE_BYTES_MAX {
        bail!("the host file {path:?} has {size} bytes, which is no list of addresses");
    }
    let text = fs::read_to_string(path).with_context(what)?;
    parse(&text, processes).map_err(|problem| Misuse(format!("the host file {path:?} {problem}")).into())
}

/// The addresses in a text, `#` begins a comment.
fn parse(text: &str, processes: usize) -> Result<Vec<String>, String> {
    let mut hosts: Vec<String> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let address = line.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            continue;
        }
        if !is_address(address) {
            return Err(format!("has {address:?} in line {number}, expected host:port"));
        }
        if hosts.iter().any(|other| other == address) {
            return Err(format!("has {address} twice, in line {number} again"));
        }
        hosts.push(address.to_owned());
    }
    if hosts.len() < processes {
        return Err(format!(
            "names {} addresses, and the job has {processes} processes: one line for each, that of process 0 first",
            hosts.len()
        ));
    }
    hosts.truncate(processes);
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_process_and_comments() {
        let text = "# ours\n10.0.0.1:2101\n\n  db.example:2101 # the second\n[::1]:7\n";
        assert_eq!(parse(text, 2).unwrap(), ["10.0.0.1:2101", "db.example:2101"]);
    }

    #[test]
    fn too_few_lines_twins_and_no_addresses_are_told() {
        assert!(parse("a:1\n", 2).unwrap_err().contains("names 1 addresses"));
        assert!(parse("a:1\na:1\n", 2).unwrap_err().contains("line 2"));
        assert!(parse("a:1\nnowhere\n", 2).unwrap_err().contains("line 2"));
    }
}
