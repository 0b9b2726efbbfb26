//! Binance's websocket streams, spot and derivatives: combined (`{stream, data}`) or bare.
//!
//! Keys are single letters that mean other things in other events (`a` is an ask in a `bookTicker`, an id in an
//! `aggTrade`, an order in a spot `trade`, a list in a depth update), so one [`Event`] takes any of them as they
//! come, and the event's name says what they are.

use super::event::Event;
use super::{COIN_MARGINED, SPOT, USD_MARGINED, exchange_of};
use crate::json::field::{Field, FieldProblem, quote};
use crate::row::{Body, Channel, Side, Trade};
use crate::venues::Verdict;
use crate::venues::rows::{Draft, Rows, Stamp};

/// Reads one message.
pub(crate) fn decode(text: &str, rows: &mut Rows) -> Result<Verdict, FieldProblem> {
    let event = Event::parse(text)?;
    let envelope = rows.envelope;
    let exchange = match (envelope.exchange, event.market()) {
        (Some(exchange), Some(found)) if envelope.checked && found != exchange => {
            return Ok(Verdict::Contradiction { found });
        }
        (Some(exchange), _) => exchange,
        (None, _) => exchange_of(&event),
    };
    let kind = match &event.kind {
        Field::Missing if event.is_bare_quote() => "bookTicker",
        Field::Missing if event.is_control() => return Ok(Verdict::Control),
        Field::Missing => return Ok(Verdict::Ignored),
        kind => kind.need_text("e")?,
    };
    match kind {
        "bookTicker" => event.quote(exchange, rows)?,
        // Derivatives also show here what no market made: the insurance fund's and auto-deleveraging's trades
        // at prices far off, and `NA` with price and quantity 0.
        "trade" if !matches!(event.order_type.text(), None | Some("MARKET")) => return Ok(Verdict::Ignored),
        "trade" => event.trade(exchange, Channel::Trade, ("t", &event.t), rows)?,
        "aggTrade" => event.trade(exchange, Channel::AggTrade, ("a", &event.a), rows)?,
        _ => return Ok(Verdict::Ignored),
    }
    Ok(Verdict::Rows)
}

impl Event<'_> {
    /// A spot `bookTicker` has no name: its stream has, or it is known by its fields.
    pub(crate) fn is_bare_quote(&self) -> bool {
        match self.stream.text() {
            Some(stream) => stream.ends_with("@bookTicker") || stream == "!bookTicker",
            None => {
                let listed = matches!(self.b, Field::List) || matches!(self.a, Field::List);
                let needed = [&self.update_id, &self.symbol, &self.b, &self.a];
                !listed && !needed.iter().any(|field| field.is_missing())
            }
        }
    }

    fn is_control(&self) -> bool {
        self.stream.is_missing() && !self.answer.is_missing()
    }

    /// What the shape says of the market (docs/definitions.md, "Input", and what the recordings of all markets show).
    pub(crate) fn market(&self) -> Option<&'static str> {
        // `BTCUSD_PERP` and `BTCUSD_210924` are margined in coin, `BTCUSDT_210625` is not. (`BTCBUSD_210226`,
        // one of two that were, would be mistaken; telling it from `BNBUSD_PERP` takes a list of coins.)
        if let Some((pair, expiry)) = self.symbol.text().and_then(|symbol| symbol.rsplit_once('_')) {
            let dated = expiry.len() == 6 && expiry.bytes().all(|byte| byte.is_ascii_digit());
            return match (expiry == "PERP" || dated, pair.ends_with("USD")) {
                (true, true) => Some(COIN_MARGINED),
                (true, false) => Some(USD_MARGINED),
                (false, _) => None,
            };
        }
        if !self.previous_update_id.is_missing() {
            return Some(USD_MARGINED);
        }
        let by_mark = |is_spot: bool| Some(if is_spot { SPOT } else { USD_MARGINED });
        match self.kind.text() {
            None if self.kind.is_missing() && self.is_bare_quote() => Some(SPOT),
            Some("bookTicker") => Some(USD_MARGINED),
            Some("depthUpdate") => by_mark(self.trade_time.is_missing()),
            // In every recording spot has `M` and the derivatives have not.
            Some("aggTrade") => by_mark(!self.spot_mark.is_missing()),
            Some("trade") if !self.spot_mark.is_missing() => Some(SPOT),
            Some("trade") if !self.order_type.is_missing() => Some(USD_MARGINED),
            _ => None,
        }
    }

    fn quote(&self, exchange: &str, rows: &mut Rows) -> Result<(), FieldProblem> {
        let id = Some(self.update_id.need_whole("u")?);
        self.row(exchange, Channel::BookTicker, id, rows, || {
            quote(&["b", "B", "a", "A"], [&self.b, &self.bid_size, &self.a, &self.ask_size]).map(Body::Quote)
        })
    }

    fn trade(
        &self,
        exchange: &str,
        channel: Channel,
        (id_name, id): (&str, &Field),
        rows: &mut Rows,
    ) -> Result<(), FieldProblem> {
        let id = Some(id.need_whole(id_name)?);
        self.row(exchange, channel, id, rows, || {
            // Where the buyer made the market, the seller took it.
            let side = match self.buyer_is_maker {
                Field::Bool(true) => Some(Side::Sell),
                Field::Bool(false) => Some(Side::Buy),
                Field::Missing | Field::Null => None,
                _ => return Err(self.buyer_is_maker.wrong("m", "true or false")),
            };
            Ok(Body::Trade(Trade { price: self.price.price("p")?, size: self.size.size("q")?, side }))
        })
    }

    fn row(
        &self,
        exchange: &str,
        channel: Channel,
        id: Option<u64>,
        rows: &mut Rows,
        body: impl FnOnce() -> Result<Body, FieldProblem>,
    ) -> Result<(), FieldProblem> {
        // The spot `bookTicker` has no time at all.
        let quotes_have_time = exchange != SPOT;
        let draft = Draft {
            exchange,
            symbol_name: "s",
            symbol: &self.symbol,
            stamp: &self.stamp(),
            channel,
            id,
            quotes_have_time,
        };
        rows.add(&draft, body)
    }

    fn stamp(&self) -> Stamp {
        let (name, field) = match (&self.trade_time, &self.event_time) {
            (Field::Missing | Field::Null, Field::Missing | Field::Null) => return Stamp::Receipt,
            (Field::Missing | Field::Null, event_time) => ("E", event_time),
            (trade_time, _) => ("T", trade_time),
        };
        Stamp::of_number(name, field)
    }
}
