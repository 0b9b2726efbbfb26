//! The format of a message, told by its shape.

use super::{Format, canonical, venue_of};
use crate::json::field::Field;
use crate::json::message::{fill, message};

message! {
    /// The fields that tell formats with readable names apart.
    Shape {
        kind: "type",
        channel: "channel",
        timestamp: "timestamp",
        events: "events",
        product_id: "product_id",
        channels: "channels",
        exchange: "exchange",
        instrument: "instrument",
    }
}

/// The format that a message can only be of; `None` where its shape does not tell, as with most errors, requests
/// and control records.
pub fn detect(message: &[u8]) -> Option<Format> {
    let text = std::str::from_utf8(message).ok()?;
    let mut shape = Shape::default();
    fill(text, &mut shape).ok()?;
    Format::all().find(|format| (format.0.detects)(&shape, text))
}

/// The format of a message: what its exchange and its first bytes tell, where they can only be of one, else its
/// whole shape. A function of the message alone, so that it is the same in every replay.
pub fn format_of(message: &[u8], exchange: Option<&str>) -> Format {
    let venue = exchange.map_or(&canonical::VENUE, |name| venue_of(name).unwrap_or(&canonical::VENUE));
    if exchange.is_some() {
        for format in venue.formats {
            if format.begins.iter().any(|bytes| message.starts_with(bytes)) {
                return Format(format);
            }
        }
    }
    detect(message).unwrap_or(venue.default_format())
}

/// Whether a message says of itself what only an envelope of Coinbase Advanced Trade does, whole or not.
pub(crate) fn is_envelope(shape: &Shape) -> bool {
    shape.channel.text().is_some() && shape.timestamp.text().is_some()
}

/// Whether a field holds a list.
pub(crate) fn is_list(field: &Field) -> bool {
    matches!(field, Field::List)
}
