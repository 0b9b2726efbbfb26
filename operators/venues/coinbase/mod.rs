//! Coinbase: one exchange, two feeds.

pub(crate) mod advanced_trade;
pub(crate) mod exchange;

use super::shift::{MovablePlace, id, id_of_connection};
use super::{Exchange, Format, Trades, Venue, tells_nothing};
use crate::row::Side;

pub static VENUE: Venue = Venue {
    formats: &[&exchange::WIRE, &advanced_trade::WIRE],
    exchanges: &[Exchange {
        gap_after: "60s",
        about_gap: "The longest silence that is no gap, where inherit takes gaps.after; Coinbase sends tickers only with trades.",
        ..Exchange::named(EXCHANGE, Trades::Both)
    }],
    exchange_of: tells_nothing,
    exchange_of_url: tells_nothing,
};

pub const COINBASE_EXCHANGE: Format = Format(&exchange::WIRE);
pub const COINBASE_ADVANCED_TRADE: Format = Format(&advanced_trade::WIRE);

/// The exchange of both feeds, where a message's source does not name another.
const EXCHANGE: &str = "coinbase";

/// The aggressor's side where the venue names the maker's.
fn opposite(maker: Side) -> Side {
    match maker {
        Side::Buy => Side::Sell,
        Side::Sell => Side::Buy,
    }
}

fn movable(_: &[u8], key: &[u8]) -> Option<MovablePlace> {
    match key {
        b"time" | b"timestamp" | b"event_time" => Some(MovablePlace::Time),
        b"sequence" => id("sequence"),
        b"trade_id" | b"last_trade_id" => id("trade_id"),
        b"sequence_num" => id_of_connection("sequence_num"),
        b"heartbeat_counter" => id_of_connection("heartbeat_counter"),
        _ => None,
    }
}
