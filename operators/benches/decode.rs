//! What one message costs to decode: `cargo bench -p foreshock-operators --bench decode`.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use foreshock_operators::row::{Extent, InstrumentId, Source};
use foreshock_operators::time::{Time, TimeText, parse_rfc3339};
use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::canonical::CANONICAL;
use foreshock_operators::venues::coinbase::COINBASE_ADVANCED_TRADE;
use foreshock_operators::venues::coinbase::COINBASE_EXCHANGE;
use foreshock_operators::venues::{ClockSource, Envelope, Format, Resolve, Resolved, decode};

fn main() {
    divan::main();
}

const COINBASE_TICKER: &str = r#"{"type":"ticker","sequence":38332655422,"product_id":"BTC-USD","price":"29940.91","open_24h":"31677.61","volume_24h":"27783.70216674","low_24h":"29308.01","high_24h":"31888","volume_30d":"778633.19135445","best_bid":"29940.91","best_bid_size":"0.03416000","best_ask":"29943.41","best_ask_size":"0.20000000","side":"sell","time":"2022-06-01T20:31:23.469151Z","trade_id":345622431,"last_size":"0.00016"}"#;
const COINBASE_MATCH: &str = r#"{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16","taker_order_id":"3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}"#;
const ADVANCED_TICKER: &str = r#"{"channel":"ticker","client_id":"","timestamp":"2023-02-09T20:30:37.167359596Z","sequence_num":0,"events":[{"type":"update","tickers":[{"type":"ticker","product_id":"ETH-USDT","price":"21932.98","volume_24_h":"16038.28770938","low_24_h":"21835.29","high_24_h":"23011.18","low_52_w":"15460","high_52_w":"48240","price_percent_chg_24_h":"-4.15775596190603","best_bid":"21931.98","best_bid_quantity":"8000.21","best_ask":"21933.98","best_ask_quantity":"8038.07770938"}]}]}"#;
const BINANCE_BOOK_TICKER: &str = r#"{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256313}}"#;
const BINANCE_TRADE: &str = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}"#;
const BINANCE_DEPTH: &str = r#"{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1626916403873,"T":1626916403864,"s":"BCHUSD_PERP","ps":"BCHUSD","U":167006084465,"u":167006084895,"pu":167006084238,"b":[["427.27","0"],["427.53","260"],["427.61","17"],["427.69","0"],["427.75","228"],["427.84","24"],["427.91","0"]],"a":[["427.90","669"],["427.91","24"],["427.92","670"],["428.19","676"]]}}"#;
const CANONICAL_QUOTE: &str = r#"{"type":"quote","exchange":"x","instrument":"BTC-USD","event_time":"2026-01-02T03:04:05.678901Z","sequence":7,"bid":61800.2,"bid_size":2.507,"ask":61800.3,"ask_size":2.51}"#;

/// One instrument, known at once: what is measured is the decoder.
struct OneInstrument;

impl Resolve for OneInstrument {
    fn resolve(&mut self, _: &str, symbol: &str) -> Option<Resolved> {
        black_box(symbol);
        Some(Resolved { instrument: InstrumentId(0), clock: ClockSource::Exchange })
    }
}

#[divan::bench(sample_size = 2000, args = [
    ("coinbase ticker", COINBASE_EXCHANGE, COINBASE_TICKER),
    ("coinbase match", COINBASE_EXCHANGE, COINBASE_MATCH),
    ("advanced trade ticker", COINBASE_ADVANCED_TRADE, ADVANCED_TICKER),
    ("binance bookTicker", BINANCE, BINANCE_BOOK_TICKER),
    ("binance trade", BINANCE, BINANCE_TRADE),
    ("binance depth (ignored)", BINANCE, BINANCE_DEPTH),
    ("canonical quote", CANONICAL, CANONICAL_QUOTE),
].map(Case))]
fn message(bencher: Bencher, case: Case) {
    let Case((_, format, text)) = case;
    let envelope = Envelope {
        received: None,
        exchange: None,
        checked: false,
        source: Source::default(),
        extent: Extent::default(),
    };
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    bencher.counter(ItemsCount::new(1u32)).counter(BytesCount::of_str(text)).bench_local(|| {
        rows.clear();
        decode(format, black_box(text.as_bytes()), &envelope, &mut OneInstrument, &mut rows, &mut refused)
    });
    assert!(refused.is_empty(), "a message that is measured is understood");
}

#[divan::bench(sample_size = 10000)]
fn parse_time(bencher: Bencher) {
    bencher.bench_local(|| parse_rfc3339(black_box(b"2021-04-17T16:43:30.244075Z")));
}

#[divan::bench(sample_size = 10000)]
fn write_time(bencher: Bencher) {
    let (mut text, mut out) = (TimeText::default(), Vec::with_capacity(32));
    bencher.bench_local(|| {
        out.clear();
        text.write(black_box(Time(1_618_677_810_244_075_000)), 6, &mut out);
        out.len()
    });
}

/// A message under the name that the table shows.
#[derive(Clone, Copy)]
struct Case((&'static str, Format, &'static str));

impl std::fmt::Display for Case {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.0.0)
    }
}
