//! `instruments.yaml`: which instruments there are and what is known of each.

use std::collections::BTreeMap;

use foreshock_dataflows::settings::{ExchangeSettings, InstrumentType, ListedInstrument};
use foreshock_operators::venues::{Trades, venue_of};

use super::keys::{CLOCKS, QUOTE_CHANNELS, TRADE_CHANNELS, limit};
use super::{channel, clock, inherited_limit};
use crate::documents::error::ConfigErrors;
use crate::documents::file::Document;
use crate::documents::kind::{Charset, NumberRange, Setting, ValueKind};
use crate::documents::section::{Report, Section};

/// Reads and checks the list.
pub fn read(document: &Document) -> Result<Vec<ListedInstrument>, ConfigErrors> {
    let report = Report::new(document.name.clone());
    let mut listed = Vec::new();
    let node = report.parse(document);
    if let Some(mut root) = node.as_ref().and_then(|node| Section::open(&report, "", node.line, node)) {
        let mut seen = BTreeMap::new();
        for mut section in root.sections("instruments") {
            let instrument = instrument(&mut section);
            for (what, name) in [("symbol", &instrument.symbol), ("id", &instrument.id)] {
                let earlier = seen.insert((what, instrument.exchange.clone(), name.clone()), section.line());
                if let Some(line) = earlier.filter(|_| !name.is_empty()) {
                    let problem = format!(
                        "found {name:?} of {} a second time, first at line {line}",
                        instrument.exchange
                    );
                    section.refuse(what, problem);
                }
            }
            listed.push(instrument);
            section.finish();
        }
        root.finish();
    }
    let errors = report.into_errors();
    if errors.is_empty() { Ok(listed) } else { Err(errors) }
}

fn instrument(section: &mut Section) -> ListedInstrument {
    let exchange = section.text("exchange", Charset::Name);
    let symbol = section.text("symbol", Charset::Symbol);
    let id = section.text("id", Charset::Id);
    let kind = match section.required("type", ValueKind::Choice(&["spot", "perpetual", "future"])) {
        Some(Setting::Word("perpetual")) => InstrumentType::Perpetual,
        Some(Setting::Word("future")) => InstrumentType::Future,
        _ => InstrumentType::Spot,
    };
    let base = section.text("base", Charset::Symbol);
    let quote = section.text("quote", Charset::Symbol);
    let contract_value = section.optional_number("contract_value", NumberRange::Positive).unwrap_or(1.0);
    let inverse = section.flag("inverse").unwrap_or(false);
    if kind == InstrumentType::Spot && (inverse || contract_value != 1.0) {
        section.refuse(
            "type",
            "found spot, which has no contracts, beside a contract_value other than 1 or inverse: true",
        );
    }
    if let Some(problem) = other_market(&exchange, kind) {
        section.refuse("type", problem);
    }
    let settings = settings(section);
    ListedInstrument { exchange, symbol, id, kind, base, quote, contract_value, inverse, settings }
}

/// What is wrong with an instrument of this kind on an exchange that trades the other.
fn other_market(exchange: &str, kind: InstrumentType) -> Option<String> {
    let markets = venue_of(exchange)?.exchanges;
    let trades = markets.iter().find(|market| market.name == exchange)?.trades;
    let expected = if kind == InstrumentType::Spot { Trades::Spot } else { Trades::Contracts };
    if trades == Trades::Both || trades == expected {
        return None;
    }
    let of = |trades| {
        let names: Vec<&str> =
            markets.iter().filter(|market| market.trades == trades).map(|market| market.name).collect();
        names.join(" and ")
    };
    let (spot, contracts) = (of(Trades::Spot), of(Trades::Contracts));
    Some(format!(
        "found spot on a futures exchange, or a contract on {spot}: its markets are {spot} (spot), {contracts} (contracts)"
    ))
}

/// What the instrument has otherwise than its exchange.
fn settings(section: &mut Section) -> ExchangeSettings {
    let mut inherited = |key| match section.optional(key, limit(&["inherit", "off"])) {
        Some(Setting::Duration(length)) => inherited_limit(Some(length), ""),
        Some(Setting::Word(word)) => inherited_limit(None, word),
        _ => inherited_limit(None, "inherit"),
    };
    let (gap_after, max_jump) = (inherited("gap_after"), inherited("max_jump"));
    let clock = clock(section.choice("clock", &CLOCKS).unwrap_or("auto"));
    let (mut quote_channel, mut trade_channel) = (None, None);
    if let Some(mut channels) = section.section("channels") {
        quote_channel = channels.choice("quote", &QUOTE_CHANNELS).and_then(channel);
        trade_channel = channels.choice("trade", &TRADE_CHANNELS).and_then(channel);
        channels.finish();
    }
    ExchangeSettings { gap_after, max_jump, clock, quote_channel, trade_channel }
}
