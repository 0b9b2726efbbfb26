//! Which instrument a symbol stands for, and which settings hold for it.

use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::settings::{
    ClockChoice, ExchangeSettings, InheritedLimit, InstrumentSettings, InstrumentType, ListedInstrument,
    Unknown,
};
use foreshock_operators::row::Channel;
use foreshock_operators::time::SECOND;
use foreshock_operators::venues::{ClockSource, Resolve};

fn listed(exchange: &str, symbol: &str, id: &str, settings: ExchangeSettings) -> ListedInstrument {
    ListedInstrument {
        exchange: exchange.to_string(),
        symbol: symbol.to_string(),
        id: id.to_string(),
        kind: InstrumentType::Spot,
        base: "A".to_string(),
        quote: "B".to_string(),
        contract_value: 1.0,
        inverse: false,
        settings,
    }
}

fn table(unknown: Unknown, max: usize) -> Instruments {
    let slow = ExchangeSettings { gap_after: InheritedLimit::After(60 * SECOND), ..Default::default() };
    let never = ExchangeSettings {
        gap_after: InheritedLimit::Off,
        trade_channel: Some(Channel::Trade),
        ..Default::default()
    };
    let stamped = ExchangeSettings { clock: ClockChoice::Exchange, ..Default::default() };
    let book = ExchangeSettings { quote_channel: Some(Channel::Book), ..Default::default() };
    Instruments::new(InstrumentSettings {
        unknown,
        max,
        gap_after: Some(5 * SECOND),
        max_jump: Some(5 * SECOND),
        exchanges: [("coinbase".to_string(), slow)].into(),
        listed: vec![
            listed("coinbase", "BTC-USD", "BTC-USD", never),
            listed("coinbase", "ETH-USD", "ETH-USD", ExchangeSettings::default()),
            listed("binance", "BTCUSDT", "BTC-USDT", ExchangeSettings::default()),
            listed("binance", "ETHUSDT", "ETH-USDT", stamped),
            listed("binance", "SOLUSDT", "SOL-USDT", book),
        ],
    })
}

#[track_caller]
fn check(exchange: &str, symbol: &str, name: &str, gap_after_s: Option<i64>, clock: ClockSource) {
    let table = table(Unknown::Accept, 10);
    let resolved = table.resolver().resolve(exchange, symbol).expect("any instrument is taken");
    let instrument = table.get(resolved.instrument);
    assert_eq!((&*instrument.exchange, &*instrument.name), (exchange, name));
    assert_eq!(instrument.gap_after, gap_after_s.map(|seconds| seconds * SECOND));
    assert_eq!(resolved.clock, clock);
}

#[test]
fn what_an_instrument_says_wins_over_its_exchange_and_that_over_the_defaults() {
    use ClockSource::{Auto, Exchange};
    check("coinbase", "BTC-USD", "BTC-USD", None, Auto);
    check("coinbase", "ETH-USD", "ETH-USD", Some(60), Auto);
    check("coinbase", "SOL-USD", "SOL-USD", Some(60), Auto);
    check("other", "BTC-USD", "BTC-USD", Some(5), Auto);
    check("binance", "BTCUSDT", "BTC-USDT", Some(5), Auto);
    check("binance", "XRPUSDT", "XRPUSDT", Some(5), Auto);
    check("binance", "ETHUSDT", "ETH-USDT", Some(5), Exchange);
    check("binance", "SOLUSDT", "SOL-USDT", Some(5), Exchange);
    check("binance-usdm", "BTCUSDT", "BTCUSDT", Some(5), Auto);
}

#[test]
fn a_symbol_and_the_name_it_stands_for_are_one_instrument() {
    let table = table(Unknown::Accept, 10);
    let mut resolver = table.resolver();
    let symbol = resolver.resolve("binance", "BTCUSDT");
    assert_eq!(resolver.resolve("binance", "BTC-USDT"), symbol);
    assert_eq!(table.resolver().resolve("binance", "BTC-USDT"), symbol);
    assert_ne!(resolver.resolve("binance-usdm", "BTCUSDT"), symbol);
}

#[test]
fn long_symbols_and_those_that_differ_in_their_end_are_told_apart() {
    let table = table(Unknown::Accept, 100);
    let mut resolver = table.resolver();
    let symbols =
        ["A", "AA", "BTC-240628-100000-CALL-AB", "BTC-240628-100000-CALL-A", "BTC-240628-100000-CALL-AC"];
    let numbers: Vec<_> = symbols.map(|symbol| resolver.resolve("x", symbol)).into();
    for (at, number) in numbers.iter().enumerate() {
        assert_eq!(numbers.iter().position(|other| other == number), Some(at));
        assert_eq!(resolver.resolve("x", symbols[at]), *number);
    }
}

#[test]
fn unlisted_instruments_are_refused_where_only_listed_ones_are_taken() {
    let table = table(Unknown::DeadLetter, 10);
    assert_eq!(table.resolver().resolve("coinbase", "DOGE-USD"), None);
    assert!(table.resolver().resolve("coinbase", "BTC-USD").is_some());
    assert!(!table.too_many());
}

#[test]
fn one_instrument_too_many_is_noticed() {
    let table = table(Unknown::Accept, 2);
    let mut resolver = table.resolver();
    assert!(resolver.resolve("x", "A").is_some() && resolver.resolve("x", "B").is_some());
    assert!(!table.too_many());
    assert_eq!(resolver.resolve("x", "C"), None);
    assert!(table.too_many());
    assert!(resolver.resolve("x", "A").is_some());
}
