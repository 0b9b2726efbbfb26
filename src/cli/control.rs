//! `foreshock control`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use foreshock_dataflows::control::{self, ID_MAX, model_record, rules_record};
use foreshock_operators::model::Model;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::rules::Rule;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::warn;

use super::{parse_brokers, parse_time};
use crate::config::{Config, Mode, environment, rules_of};
use crate::documents::file::FileRef;
use crate::kafka::admin::answers::Answers;
use crate::kafka::admin::append::append;
use crate::kafka::admin::topics::TopicAdmin;
use crate::logs;
use crate::misuse::Misuse;
use crate::models;
use crate::status::wall_time;
use crate::summary::print;

/// Change the model or the rules of running jobs: append a record to every partition of the input.
///
/// It takes effect for each instrument at its first row behind the record, in every job that reads the topics, and in
/// every replay of them.
#[derive(Args, Debug)]
pub struct ControlArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Put a model file in force.
    Model(AppendArgs),
    /// Put a file of alert rules in force: those that say the same keep their alerts, what others raised is resolved.
    Rules(AppendArgs),
}

#[derive(Args, Debug)]
struct AppendArgs {
    /// The file, as model.ml or alerts.file in the configuration would name it.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Take effect at the first row at or after this event time (RFC 3339); by default at once.
    #[arg(long, value_name = "TIME")]
    effective_at: Option<String>,

    /// Name of the record: a partition takes each once. By default made of content and time.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    id: Option<String>,

    /// Wait so many seconds for the answer of every partition; fail where one refuses or stays silent.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,

    /// Print the record and append nothing.
    #[arg(long)]
    dry_run: bool,

    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    /// Brokers to ask first, `host:port` with commas between them; by default kafka.brokers.
    #[arg(long, value_name = "ADDRESSES", value_parser = parse_brokers)]
    brokers: Option<String>,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a file puts in force.
enum Content {
    Model(Arc<Model>),
    Rules(Arc<[Rule]>),
}

/// What a partition of the input has to do with a record.
struct Appended {
    topic: String,
    partition: i32,
    answer: Option<Answer>,
}

#[derive(Clone, Deserialize)]
struct Answer {
    id: Option<String>,
    shard: String,
    state: String,
    offset: u64,
    reason: Option<String>,
}

/// Runs the command.
pub fn control(args: ControlArgs) -> Result<()> {
    let (kind, mut args) = match args.what {
        What::Model(args) => ("model", args),
        What::Rules(args) => ("rules", args),
    };
    let brokers = args.brokers.take().map(|brokers| ("FORESHOCK_KAFKA__BROKERS".to_owned(), brokers));
    let config = Config::load(&args.configs, environment().chain(brokers), Mode::Run)?;
    logs::start(&config.log);
    if !config.control {
        bail!(Misuse("job.control is off: the input topics are not ours to write".to_owned()));
    }
    let (id, record) = record(kind, &args, &config)?;
    if args.dry_run {
        return print(&[&record[..], b"\n"].concat());
    }
    let mut appended = partitions(&config)?;
    let client_id = format!("{}-control", config.job);
    let answers = args.wait.map(|_| answers(&config, &client_id)).transpose()?;
    append_to_all(&config, &client_id, &appended, &record)?;
    if let (Some(answers), Some(seconds)) = (&answers, args.wait) {
        collect(answers, &id, &mut appended, Instant::now() + Duration::from_secs(seconds))?;
    }
    print(shown(&id, kind, &appended, &args, &config).as_bytes())?;
    let refused = appended.iter().filter(|one| one.is("refused")).count();
    let silent = appended.iter().filter(|one| one.answer.is_none()).count();
    if refused > 0 {
        bail!("{refused} partitions refused the record");
    }
    if silent > 0 && args.wait.is_some() {
        bail!("{silent} partitions did not answer in time: does a job run that reads them?");
    }
    Ok(())
}

/// The id and bytes of the record, checked as a job would.
fn record(kind: &str, args: &AppendArgs, config: &Config) -> Result<(String, Vec<u8>)> {
    let effective_at = args.effective_at.as_deref();
    if let Some(text) = effective_at {
        parse_time(text).map_err(|problem| Misuse(format!("--effective-at: {problem}")))?;
    }
    let horizons = &config.settings.parameters.features.horizons;
    let file = FileRef::named(&args.file.to_string_lossy(), Path::new("")).map_err(Misuse)?;
    let document = file.read().map_err(|problem| anyhow!(problem))?;
    let content = match kind {
        "model" => Content::Model(Arc::new(models::read(&document, horizons)?)),
        _ => Content::Rules(rules_of(&document)?.into()),
    };
    let make = |id: &str| match &content {
        Content::Model(model) => model_record(id, effective_at, model, horizons),
        Content::Rules(rules) => rules_record(id, effective_at, rules),
    };
    let id = args.id.clone().unwrap_or_else(|| {
        let hash = models::sha256(&make(""));
        format!("{kind}-{}-{}", &hash[..8], wall_time().0)
    });
    let record = make(&id);
    control::read(&record, horizons)
        .map_err(|refusal| anyhow!("every job would refuse the record: {}", refusal.reason))?;
    let most = config.input.max_message_bytes;
    if record.len() > most {
        bail!(
            "the record has {} bytes, and jobs refuse more than input.max_message_bytes: {most}",
            record.len()
        );
    }
    Ok((id, record))
}

/// All partitions of the input.
fn partitions(config: &Config) -> Result<Vec<Appended>> {
    let topics = TopicAdmin::new(&config.kafka, &config.job)?;
    let mut partitions = Vec::new();
    for topic in &config.topics.input {
        let count = topics.partitions(topic)?.with_context(|| {
            format!("there is no topic {topic:?} at {}; see topics.input", config.kafka.brokers)
        })?;
        partitions.extend((0..count).map(|partition| Appended {
            topic: topic.clone(),
            partition,
            answer: None,
        }));
    }
    Ok(partitions)
}

fn answers_topic(config: &Config) -> &str {
    config.topics.output.get(&OutputKind::Control).map_or("", String::as_str)
}

fn answers(config: &Config, client_id: &str) -> Result<Answers> {
    let topic = answers_topic(config);
    let count = TopicAdmin::new(&config.kafka, &config.job)?.partitions(topic)?;
    let count =
        count.with_context(|| format!("there is no topic {topic:?} yet: no job can have answered"))?;
    Answers::from_now_on(&config.kafka, client_id, topic, count)
}

/// Appends the record to every partition and waits until brokers have it.
fn append_to_all(config: &Config, client_id: &str, to: &[Appended], record: &[u8]) -> Result<()> {
    for topic in &config.topics.input {
        let of_topic = to.iter().filter(|one| one.topic == *topic);
        let partitions: Vec<i32> = of_topic.map(|one| one.partition).collect();
        append(&config.kafka, client_id, topic, &partitions, record)
            .context("others may have it: append it again with the same --id")?;
    }
    Ok(())
}

/// Takes the answers to a record until every partition has given one, or time is up.
fn collect(answers: &Answers, id: &str, appended: &mut [Appended], deadline: Instant) -> Result<()> {
    while appended.iter().any(|one| one.answer.is_none()) {
        let Some(value) = answers.next(deadline)? else { break };
        let answer: Answer = match serde_json::from_slice(&value) {
            Ok(answer) => answer,
            Err(error) => {
                warn!(%error, "an answer can't be read");
                continue;
            }
        };
        let of_shard = |one: &&mut Appended| answer.shard == format!("{}/{}", one.topic, one.partition);
        if answer.id.as_deref() == Some(id)
            && let Some(one) = appended.iter_mut().find(of_shard)
        {
            one.answer = Some(answer);
        }
    }
    Ok(())
}

impl Appended {
    fn is(&self, state: &str) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.state == state)
    }

    fn state(&self) -> &str {
        self.answer.as_ref().map_or("appended", |answer| &answer.state)
    }
}

fn shown(id: &str, kind: &str, appended: &[Appended], args: &AppendArgs, config: &Config) -> String {
    if args.json {
        let partition = |one: &Appended| {
            let mut fields = BTreeMap::<&str, Value>::new();
            fields.insert("partition", format!("{}/{}", one.topic, one.partition).into());
            fields.insert("state", one.state().into());
            if let Some(answer) = &one.answer {
                fields.insert("offset", answer.offset.into());
                fields.extend(answer.reason.clone().map(|reason| ("reason", reason.into())));
            }
            json!(fields)
        };
        let partitions: Vec<Value> = appended.iter().map(partition).collect();
        return format!("{}\n", json!({ "id": id, "kind": kind, "partitions": partitions }));
    }
    let mut text = String::new();
    for one in appended {
        let reason = one.answer.as_ref().and_then(|answer| answer.reason.as_deref());
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        text += &format!("{}/{} {}{reason}\n", one.topic, one.partition, one.state());
    }
    if args.wait.is_none() {
        text += &format!(
            "{id}: jobs answer on the topic {:?}; --wait SECONDS waits for them\n",
            answers_topic(config)
        );
    }
    text
}

fn parse_id(text: &str) -> Result<String, String> {
    let fits = (1..=ID_MAX).contains(&text.len());
    if fits { Ok(text.to_owned()) } else { Err(format!("expected 1 to {ID_MAX} characters")) }
}
