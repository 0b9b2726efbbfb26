//! `foreshock run`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::venues::Format;
use tracing::info;

use super::{
    emit_help, format_help, on_signals, parse_brokers, parse_format, parse_kind, parse_workers, processors,
};
use crate::cluster::place::ProcessPlace;
use crate::cluster::secret::Secret;
use crate::cluster::{Cluster, Membership, handshake, hosts};
use crate::config::{Config, Mode, environment};
use crate::documents::kind::is_address;
use crate::hex::hex;
use crate::http::Server;
use crate::launch::parent::Parent;
use crate::live::{Done, Job};
use crate::logs;
use crate::metrics::Metrics;
use crate::misuse::Misuse;
use crate::status::JobStatus;
use crate::summary::RunSummary;
use crate::summary::print;

/// Run the live job: ticks from Kafka, features, predictions and alerts to Kafka.
///
/// Ends at Ctrl-C or SIGTERM when all that was begun is delivered and committed; a second signal ends it at once.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub job: JobArgs,

    /// Processes of the job. Each is started with the same options and a number of its own, here or on other
    /// machines; `launch` starts all of them on this one.
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = parse_processes)]
    processes: usize,

    /// The number of this process, from 0.
    #[arg(short = 'p', long, value_name = "P", default_value = "0")]
    process: usize,

    /// Where the processes are: `host:port` in each line, process 0 first. By default on this machine, at ports from
    /// 2101 on.
    #[arg(long, value_name = "FILE", conflicts_with = "hosts")]
    hostfile: Option<PathBuf>,

    /// The same as a list with commas.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', value_parser = parse_host)]
    hosts: Vec<String>,

    /// Where this process waits for the others, when it is not what the hosts say.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_host)]
    bind: Option<String>,

    /// Take orders on standard input, as `launch` gives them, and end when it ends.
    #[arg(long, hide = true)]
    supervised: bool,
}

/// What all processes of a job are told alike.
#[derive(Args, Debug)]
pub struct JobArgs {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    pub configs: Vec<PathBuf>,

    /// Worker threads of each process; by default one for each processor. The output is the same for any number.
    #[arg(short, long, value_name = "N", value_parser = parse_workers)]
    pub workers: Option<usize>,

    /// Brokers to ask first, `host:port` with commas between them; by default kafka.brokers.
    #[arg(long, value_name = "ADDRESSES", value_parser = parse_brokers)]
    pub brokers: Option<String>,

    /// Begin at the first message of each partition, whatever was read before.
    #[arg(long)]
    from_beginning: bool,

    /// Where the settings are not those of before: have the new ones come into force behind the last record that each
    /// partition has now.
    #[arg(long)]
    adopt: bool,

    /// Start although the job has failed again and again at the same place.
    #[arg(long)]
    retry: bool,

    /// End where the topics end: a backtest of topics. Without committed offsets it begins at the first message.
    #[arg(long)]
    until_end: bool,

    #[arg(long, value_parser = parse_format, help = format_help("What the messages hold; told from each message"))]
    format: Option<Format>,

    /// Whose messages they are, where neither header nor key says so.
    #[arg(long, value_name = "NAME")]
    exchange: Option<String>,

    #[arg(
        long, value_name = "LIST", value_delimiter = ',', value_parser = parse_topic_kind,
        help = emit_help(OutputKind::of_topics(), "all")
    )]
    emit: Vec<OutputKind>,

    /// Print the account at the end as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: RunArgs) -> Result<()> {
    let config = args.job.config()?;
    logs::start(&config.log);
    let place = place(&args, args.job.workers.unwrap_or_else(processors))?;
    let started = Instant::now();
    let (job_status, metrics) = (Arc::<JobStatus>::default(), Metrics::new(&config.metrics));
    let stop = on_signals()?;
    let parent = args.supervised.then(|| Parent::obey(stop.clone(), job_status.clone())).transpose()?;
    // First of all, so that health can be asked while brokers are still away.
    let http = config.http.as_ref();
    let server = http.map(|http| Server::start(http, job_status.clone(), metrics.clone())).transpose()?;
    let membership = membership(&args, place, &config, &metrics)?;
    let job = Job {
        config,
        workers: place.workers,
        kinds: topic_kinds(args.job.emit),
        format: args.job.format,
        exchange: args.job.exchange,
        from_beginning: args.job.from_beginning,
        adopt: args.job.adopt,
        retry: args.job.retry,
        until_end: args.job.until_end,
        job_status,
        metrics,
        stop: stop.clone(),
    };
    let done = match membership {
        None => job.run(),
        Some(membership) => match Cluster::join(&membership, &stop)? {
            Some(cluster) => job.run_in(cluster),
            None => {
                info!("stopped before the others had come");
                Ok(Done::default())
            }
        },
    };
    server.into_iter().for_each(Server::stop);
    let done = done?;
    let account = Some(done.account);
    let summary =
        RunSummary { account, ..RunSummary::new(done.counts, done.rows_per_worker, started.elapsed()) };
    match parent {
        Some(_) => Parent::report(&summary),
        None => print_summary(&summary, args.job.json),
    }
}

/// Prints an account for people or programs.
pub(super) fn print_summary(summary: &RunSummary, json: bool) -> Result<()> {
    let text = if json { summary.to_json().to_string() } else { summary.to_string() };
    print(format!("{text}\n").as_bytes())
}

impl JobArgs {
    /// The configuration in force.
    pub fn config(&self) -> Result<Config> {
        // As if set in the environment, so that it is checked like any other value.
        let brokers = self.brokers.clone().map(|brokers| ("FORESHOCK_KAFKA__BROKERS".to_owned(), brokers));
        Ok(Config::load(&self.configs, environment().chain(brokers), Mode::Run)?)
    }
}

/// Which part of the job this process is.
fn place(args: &RunArgs, workers: usize) -> Result<ProcessPlace> {
    let (process, processes) = (args.process, args.processes);
    if process >= processes {
        bail!(Misuse(format!(
            "there is no process {process} among {processes}: -p counts from 0, and -n says how many there are"
        )));
    }
    Ok(ProcessPlace { process, processes, workers })
}

/// What this process needs to join the others; `None` where there are none.
fn membership(
    args: &RunArgs,
    place: ProcessPlace,
    config: &Config,
    metrics: &Metrics,
) -> Result<Option<Membership>> {
    if place.processes == 1 {
        return Ok(None);
    }
    let addresses = match &args.hostfile {
        Some(path) => hosts::read(path, place.processes)?,
        None if args.hosts.is_empty() => hosts::local(place.processes),
        None if args.hosts.len() < place.processes => bail!(Misuse(format!(
            "--hosts names {} addresses, and the job has {} processes",
            args.hosts.len(),
            place.processes
        ))),
        None => args.hosts[..place.processes].to_vec(),
    };
    let secret = Secret::load(config.cluster.secret_file.as_deref())?;
    let job = &args.job;
    // What changes results, or what is read and written. Paths, ports and addresses may differ between machines.
    let alike = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        config.settings,
        config.input,
        config.topics,
        config.delivery,
        job.from_beginning,
        job.until_end,
        job.format,
        job.exchange,
        topic_kinds(job.emit.clone()),
    );
    let settings = hex(&secret.proof(&[b"foreshock settings", alike.as_bytes()]));
    let statement = handshake::statement(place, &config.job, settings)
        .context("could not get random bytes from the system")?;
    Ok(Some(Membership {
        place,
        addresses,
        bind: args.bind.clone(),
        secret,
        statement,
        connect_timeout: config.cluster.connect_timeout,
        refused: metrics.job.cluster_refused.clone(),
    }))
}

/// The kinds of output that have topics; all of them where none is named.
pub(super) fn topic_kinds(mut named: Vec<OutputKind>) -> Vec<OutputKind> {
    if named.is_empty() {
        named = OutputKind::of_topics().collect();
    }
    named.sort();
    named.dedup();
    named
}

fn parse_topic_kind(name: &str) -> Result<OutputKind, String> {
    let kind = parse_kind(name)?;
    match kind.output().topic {
        Some(_) => Ok(kind),
        None => Err(format!("{name} rows go to files only: see backtest")),
    }
}

/// More processes than this are a slip of the finger.
const PROCESSES_MAX: usize = 64;

pub(super) fn parse_processes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(processes) if (1..=PROCESSES_MAX).contains(&processes) => Ok(processes),
        _ => Err(format!("expected a whole number from 1 to {PROCESSES_MAX}")),
    }
}

fn parse_host(text: &str) -> Result<String, String> {
    if is_address(text) { Ok(text.to_owned()) } else { Err("expected host:port".to_owned()) }
}
