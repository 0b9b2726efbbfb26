//! What the job takes of a record: its value, and what key, headers and timestamp say of it.

use std::sync::Arc;

use foreshock_dataflows::batch::Delivered;
use foreshock_dataflows::control::HEADER;
use foreshock_operators::row::Extent;
use foreshock_operators::time::{MILLISECOND, Time, parse_epoch_text};
use foreshock_operators::venues::{EXCHANGES, Receipt};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use sha2::{Digest, Sha256};

/// Header of every output: the row it comes from, `topic/partition/offset/index`.
pub const SOURCE: &str = "source";

/// Header of a raw message: the exchange it comes from.
const EXCHANGE: &str = "exchange";
/// Header of a raw message: when it was received, in nanoseconds since 1970 (or µs, ms, s, by the size of the number).
const RECEIVED_AT: &str = "received_at";

/// Copies a message out of the client's memory.
pub fn delivered(message: &BorrowedMessage, bytes: &mut Vec<u8>, exchanges: &mut Vec<Arc<str>>) -> Delivered {
    let mut append = |part: &[u8]| {
        let extent = Extent { start: bytes.len() as u32, length: part.len() as u32 };
        bytes.extend_from_slice(part);
        extent
    };
    let key = message.key().unwrap_or_default();
    // Only exchanges that we know: keys of other makers may have colons too.
    let named = key.iter().position(|byte| *byte == b':').map(|colon| &key[..colon]);
    let mut exchange =
        named.and_then(|name| exchanges[..EXCHANGES.len()].iter().find(|e| e.as_bytes() == name)).cloned();
    let (key, body) = (append(key), message.payload().map(&mut append));
    let stamp = message.timestamp().to_millis().map(|ms| Time(ms.saturating_mul(MILLISECOND)));
    let mut received = stamp.map(Receipt::Broker);
    let (mut control, mut problem) = (false, None);
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        let text = header.value.and_then(|value| std::str::from_utf8(value).ok());
        match (header.key, text) {
            (EXCHANGE, Some(name)) => {
                exchange = Some(interned(name, exchanges));
            }
            (RECEIVED_AT, text) => match text.and_then(parse_epoch_text) {
                Some((time, _)) => received = Some(Receipt::Stated(time)),
                None => {
                    let found = text.unwrap_or("no text");
                    problem = Some(format!(
                        "header {RECEIVED_AT}: found {found:.40}, expected s, ms, µs or ns since 1970, from 2000 to 2100"
                    ));
                }
            },
            (HEADER, _) => control = true,
            _ => {}
        }
    }
    Delivered { offset: message.offset().unsigned_abs(), key, body, received, exchange, control, problem }
}

/// What tells a record from others at its offset.
pub fn digest(key: &[u8], body: Option<&[u8]>, stamped_at: i64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(stamped_at.to_le_bytes());
    // A record without a value is not one with an empty one.
    hash.update([u8::from(body.is_some())]);
    hash.update(body.unwrap_or_default());
    hash.finalize().into()
}

/// How many names of exchanges a shard keeps: headers are not ours to trust.
const EXCHANGES_MAX: usize = 256;

fn interned(name: &str, exchanges: &mut Vec<Arc<str>>) -> Arc<str> {
    if let Some(known) = exchanges.iter().find(|known| ***known == *name) {
        return known.clone();
    }
    let name: Arc<str> = name.into();
    if exchanges.len() < EXCHANGES_MAX {
        exchanges.push(name.clone());
    }
    name
}
