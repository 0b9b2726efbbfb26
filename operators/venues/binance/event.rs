//! The fields of Binance's events, combined (`{stream, data}`) or bare.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::json::field::{Field, FieldProblem};
use crate::json::message::{Message, fill};
use crate::json::scan::{FieldPlace, Fields};

/// The fields of any event, under their names on the wire where these say nothing or several things.
#[derive(Default)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Event<'a> {
    pub(crate) stream: Field<'a>,
    /// What stands under `data`: its fields are the event's.
    pub(crate) data: Field<'a>,
    pub(crate) kind: Field<'a>,
    pub(crate) event_time: Field<'a>,
    pub(crate) trade_time: Field<'a>,
    pub(crate) symbol: Field<'a>,
    pub(crate) update_id: Field<'a>,
    pub(crate) a: Field<'a>,
    pub(crate) ask_size: Field<'a>,
    pub(crate) b: Field<'a>,
    pub(crate) bid_size: Field<'a>,
    pub(crate) price: Field<'a>,
    pub(crate) size: Field<'a>,
    pub(crate) t: Field<'a>,
    pub(crate) buyer_is_maker: Field<'a>,
    /// `M`, of which the documentation says to ignore it; only spot has it.
    pub(crate) spot_mark: Field<'a>,
    pub(crate) order_type: Field<'a>,
    /// `pu`, the last update's id: only derivatives have it.
    pub(crate) previous_update_id: Field<'a>,
    /// `result`, `error`, `msg` or `method`: answers to requests, and the requests.
    pub(crate) answer: Field<'a>,
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "stream")]
    Stream,
    #[serde(rename = "data")]
    Data,
    #[serde(rename = "e")]
    Kind,
    #[serde(rename = "E")]
    EventTime,
    #[serde(rename = "T")]
    TradeTime,
    #[serde(rename = "s")]
    Symbol,
    #[serde(rename = "u")]
    UpdateId,
    #[serde(rename = "a")]
    SmallA,
    #[serde(rename = "A")]
    AskSize,
    #[serde(rename = "b")]
    SmallB,
    #[serde(rename = "B")]
    BidSize,
    #[serde(rename = "p")]
    Price,
    #[serde(rename = "q")]
    Size,
    #[serde(rename = "t")]
    SmallT,
    #[serde(rename = "m")]
    BuyerIsMaker,
    #[serde(rename = "M")]
    SpotMark,
    #[serde(rename = "X")]
    OrderType,
    #[serde(rename = "pu")]
    PreviousUpdateId,
    #[serde(rename = "result", alias = "error", alias = "msg", alias = "method")]
    Answer,
    #[serde(other)]
    Other,
}

impl<'a> Event<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, FieldProblem> {
        let mut event = Event::default();
        fill(text, &mut event)?;
        Ok(event)
    }
}

impl<'a> Message<'a> for Event<'a> {
    fn seed(&mut self) -> impl DeserializeSeed<'a> {
        Fill { event: self, top: true }
    }
}

impl<'a> Fields<'a> for Event<'a> {
    const LISTS: &'static [&'static str] = &[];

    #[inline]
    fn place(&mut self, key: &[u8], top: bool) -> FieldPlace<'_, 'a> {
        let field = match key {
            b"data" if top && self.data.is_missing() => {
                self.data = Field::Object;
                return FieldPlace::Object;
            }
            // A second one.
            b"data" if top => &mut self.data,
            b"stream" => &mut self.stream,
            b"e" => &mut self.kind,
            b"E" => &mut self.event_time,
            b"T" => &mut self.trade_time,
            b"s" => &mut self.symbol,
            b"u" => &mut self.update_id,
            b"a" => &mut self.a,
            b"A" => &mut self.ask_size,
            b"b" => &mut self.b,
            b"B" => &mut self.bid_size,
            b"p" => &mut self.price,
            b"q" => &mut self.size,
            b"t" => &mut self.t,
            b"m" => &mut self.buyer_is_maker,
            b"M" => &mut self.spot_mark,
            b"X" => &mut self.order_type,
            b"pu" => &mut self.previous_update_id,
            b"result" | b"error" | b"msg" | b"method" => &mut self.answer,
            _ => return FieldPlace::Unused,
        };
        FieldPlace::Field(field)
    }
}

/// Fills an event from a message, or from what stands under its `data`.
struct Fill<'e, 'a> {
    event: &'e mut Event<'a>,
    top: bool,
}

impl<'de> DeserializeSeed<'de> for Fill<'_, 'de> {
    type Value = Field<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fill<'_, 'de> {
    /// What it was that has been taken in.
    type Value = Field<'de>;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an object or a list")
    }

    /// Lists, like `!ticker@arr`, hold nothing that is used; they only have to be JSON.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let event = self.event;
        while let Some(key) = object.next_key()? {
            let (name, field) = match key {
                Key::Data if self.top => {
                    if !event.data.is_missing() {
                        return Err(A::Error::duplicate_field("data"));
                    }
                    event.data = object.next_value_seed(Fill { event: &mut *event, top: false })?;
                    continue;
                }
                Key::Data | Key::Other => {
                    object.next_value::<IgnoredAny>()?;
                    continue;
                }
                Key::Stream => ("stream", &mut event.stream),
                Key::Kind => ("e", &mut event.kind),
                Key::EventTime => ("E", &mut event.event_time),
                Key::TradeTime => ("T", &mut event.trade_time),
                Key::Symbol => ("s", &mut event.symbol),
                Key::UpdateId => ("u", &mut event.update_id),
                Key::SmallA => ("a", &mut event.a),
                Key::AskSize => ("A", &mut event.ask_size),
                Key::SmallB => ("b", &mut event.b),
                Key::BidSize => ("B", &mut event.bid_size),
                Key::Price => ("p", &mut event.price),
                Key::Size => ("q", &mut event.size),
                Key::SmallT => ("t", &mut event.t),
                Key::BuyerIsMaker => ("m", &mut event.buyer_is_maker),
                Key::SpotMark => ("M", &mut event.spot_mark),
                Key::OrderType => ("X", &mut event.order_type),
                Key::PreviousUpdateId => ("pu", &mut event.previous_update_id),
                Key::Answer => {
                    event.answer = object.next_value()?;
                    continue;
                }
            };
            if !field.is_missing() {
                return Err(A::Error::duplicate_field(name));
            }
            *field = object.next_value()?;
        }
        Ok(Field::Object)
    }
}
