//! The format of a message, told by its shape.

use super::binance_event::Event;
use super::field::Field;
use super::message::{fill, message};
use super::okx;
use super::{EXCHANGES, Format};

message! {
    /// The fields that tell the formats with readable names apart.
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
    let is_list = |field: &Field| matches!(field, Field::List);
    match shape.kind.text() {
        Some("quote" | "trade" | "book" | "heartbeat")
            if shape.exchange.text().is_some() && shape.instrument.text().is_some() =>
        {
            Some(Format::Canonical)
        }
        Some(_) if shape.product_id.text().is_some() => Some(Format::CoinbaseExchange),
        Some("subscriptions") if is_list(&shape.channels) => Some(Format::CoinbaseExchange),
        Some(_) => None,
        None if shape.channel.text().is_some() && shape.timestamp.text().is_some() => {
            is_list(&shape.events).then_some(Format::CoinbaseAdvancedTrade)
        }
        None if okx::is_okx(text) => Some(Format::Okx),
        None => {
            let event = Event::parse(text).ok()?;
            let combined = event.stream.text().is_some() && !event.data.is_missing();
            let named = event.kind.text().is_some() && !event.event_time.is_missing();
            (combined || named || event.is_bare_quote()).then_some(Format::Binance)
        }
    }
}

/// The format of a message: what its exchange and its first bytes tell, where they can only be of one, else its
/// whole shape. A function of the message alone, so that it is the same in every replay.
pub fn format_of(message: &[u8], exchange: Option<&str>) -> Format {
    let starts = |prefix: &[u8]| message.starts_with(prefix);
    match exchange {
        Some("binance" | "binance-usdm" | "binance-coinm") if starts(b"{\"stream\"") || starts(b"{\"e\"") => {
            return Format::Binance;
        }
        Some("coinbase") if starts(b"{\"type\":\"ticker\"") || starts(b"{\"type\":\"match\"") => {
            return Format::CoinbaseExchange;
        }
        Some("coinbase") if starts(b"{\"channel\"") => return Format::CoinbaseAdvancedTrade,
        Some(other) if !EXCHANGES.contains(&other) && starts(b"{\"type\"") => return Format::Canonical,
        _ => {}
    }
    detect(message).unwrap_or(match exchange {
        Some("binance" | "binance-usdm" | "binance-coinm") => Format::Binance,
        Some("coinbase") => Format::CoinbaseExchange,
        Some("okx") => Format::Okx,
        _ => Format::Canonical,
    })
}
