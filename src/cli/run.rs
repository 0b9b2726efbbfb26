//! `foreshock run`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use foreshock_dataflows::emit::Kind;
use foreshock_operators::decode::Format;

use super::{on_signals, parse_brokers, parse_format, parse_kind, parse_workers, print, processors};
use crate::backtest::summary::Summary;
use crate::config::{Config, Mode, environment};
use crate::http::Server;
use crate::live::Job;
use crate::logs;
use crate::metrics::Metrics;
use crate::status::Board;

/// Run the live job: ticks from Kafka, features, predictions and alerts to Kafka.
///
/// Ends at Ctrl-C or SIGTERM when all that was begun is delivered and committed; a second signal ends it at once.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    /// Worker threads; by default one for each processor. The output is the same for any number.
    #[arg(short, long, value_name = "N", value_parser = parse_workers)]
    workers: Option<usize>,

    /// Brokers to ask first, `host:port` with commas between them; by default kafka.brokers.
    #[arg(long, value_name = "ADDRESSES", value_parser = parse_brokers)]
    brokers: Option<String>,

    /// Begin at the first message of each partition, whatever was read before.
    #[arg(long)]
    from_beginning: bool,

    /// End where the topics end: a backtest of topics. Without committed offsets it begins at the first message.
    #[arg(long)]
    until_end: bool,

    /// What the messages hold; told from each message where left out: coinbase-exchange, coinbase-advanced-trade,
    /// binance, okx, canonical.
    #[arg(long, value_parser = parse_format)]
    format: Option<Format>,

    /// Whose messages they are, where neither header nor key says so.
    #[arg(long, value_name = "NAME")]
    exchange: Option<String>,

    /// What to write: a list of features, predictions, metrics, gaps, alerts, deadletter; by default all.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_topic_kind)]
    emit: Vec<Kind>,

    /// Print the account at the end as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: RunArgs) -> Result<()> {
    // As if set in the environment, so that it is checked like any other value.
    let brokers = args.brokers.map(|brokers| ("FORESHOCK_KAFKA__BROKERS".to_owned(), brokers));
    let config = Config::load(&args.configs, environment().chain(brokers), Mode::Run)?;
    logs::start(&config.log);
    let started = Instant::now();
    let (board, metrics) = (Arc::<Board>::default(), Metrics::new());
    // First of all, so that health can be asked while brokers are still away.
    let http = config.http.as_ref();
    let server = http.map(|http| Server::start(http, board.clone(), metrics.clone())).transpose()?;
    let job = Job {
        config,
        workers: args.workers.unwrap_or_else(processors),
        kinds: topic_kinds(args.emit),
        format: args.format,
        exchange: args.exchange,
        from_beginning: args.from_beginning,
        until_end: args.until_end,
        board,
        metrics,
        stop: on_signals()?,
    };
    let done = job.run();
    server.into_iter().for_each(Server::stop);
    let done = done?;
    let summary = Summary::new(done.counts, done.rows_per_worker, started.elapsed());
    let text = if args.json { summary.to_json().to_string() } else { summary.to_string() };
    print(format!("{text}\n").as_bytes())
}

/// The kinds of output that have topics; all of them where none is named.
pub(super) fn topic_kinds(mut named: Vec<Kind>) -> Vec<Kind> {
    if named.is_empty() {
        named = Kind::of_topics().collect();
    }
    named.sort();
    named.dedup();
    named
}

fn parse_topic_kind(name: &str) -> Result<Kind, String> {
    match parse_kind(name)? {
        Kind::Scored => Err("scored rows go to files only: see backtest".to_owned()),
        kind => Ok(kind),
    }
}
