//! Publications ─► records of a producer.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use foreshock_dataflows::encode_records::{OutputRecord, RecordKey};
use foreshock_dataflows::instruments::Instruments;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::row::InstrumentId;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::config::TopicsConfig;
use crate::kafka::message::SOURCE;
use crate::kafka::progress::Shard;

/// Makes records and hands them to clients.
pub struct Records {
    /// By `OutputKind as usize`.
    topics: [Option<String>; OutputKind::ALL.len()],
    shards: Arc<[Shard]>,
    /// `topic/partition` of each shard.
    names: Arc<[String]>,
    instruments: Instruments,
    /// `<exchange>:<instrument>` by instrument number; empty until first used.
    keys: Vec<String>,
    source: SourceText,
}

impl Records {
    pub fn new(topics: &TopicsConfig, shards: Arc<[Shard]>, instruments: Instruments) -> Records {
        Records {
            topics: OutputKind::ALL.map(|kind| topics.output.get(&kind).cloned()),
            names: shards.iter().map(Shard::name).collect(),
            shards,
            instruments,
            keys: Vec::new(),
            source: SourceText::default(),
        }
    }

    /// Hands a record of a shard to the client under this tag; `false` where the client's queue is full.
    ///
    /// # Errors
    /// When the client refuses it: the error names the row.
    pub fn send<C: ProducerContext<DeliveryOpaque = usize>>(
        &mut self,
        producer: &BaseProducer<C>,
        shard: u32,
        bytes: &[u8],
        record: OutputRecord,
        tag: usize,
    ) -> Result<bool> {
        let OutputRecord { kind, key, value, offset, index } = record;
        let at = shard as usize;
        let Some(topic) = &self.topics[kind as usize] else { bail!("{} have no topic", kind.name()) };
        if let RecordKey::Instrument(id) = key {
            introduce(&mut self.keys, &self.instruments, id);
        }
        let source = self.source.write(&self.names[at], offset, index);
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: SOURCE, value: Some(source) });
        let mut record = BaseRecord::with_opaque_to(topic, tag)
            .partition(self.shards[at].partition)
            .payload(value.of(bytes))
            .headers(headers);
        record.key = match key {
            RecordKey::Instrument(id) => Some(self.keys[id.0 as usize].as_bytes()),
            RecordKey::Text(extent) => Some(extent.of(bytes)),
            RecordKey::None => None,
        };
        match producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => {
                Err(anyhow::Error::new(error).context(format!("could not send a row of {source} to {topic}")))
            }
        }
    }
}

fn introduce(keys: &mut Vec<String>, instruments: &Instruments, id: InstrumentId) {
    let at = id.0 as usize;
    if keys.len() <= at {
        keys.resize(at + 1, String::new());
    }
    if keys[at].is_empty() {
        let instrument = instruments.get(id);
        keys[at] = format!("{}:{}", instrument.exchange, instrument.name);
    }
}

/// The text of the header, made once for all outputs of a row.
#[derive(Default)]
struct SourceText {
    text: String,
    of: Option<(u64, u32)>,
    shard: String,
}

impl SourceText {
    fn write(&mut self, shard: &str, offset: u64, index: u32) -> &str {
        if self.of != Some((offset, index)) || self.shard != shard {
            self.text.clear();
            // Writing to a string can't fail.
            let _ = write!(self.text, "{shard}/{offset}/{index}");
            self.of = Some((offset, index));
            shard.clone_into(&mut self.shard);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_shard_offset_and_index() {
        let mut source = SourceText::default();
        assert_eq!(source.write("a/0", 7, 0), "a/0/7/0");
        assert_eq!(source.write("a/0", 7, 1), "a/0/7/1");
        assert_eq!(source.write("b/0", 7, 1), "b/0/7/1");
    }
}
