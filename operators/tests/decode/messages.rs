//! One message of each shape, as venues send them.

use foreshock_operators::venues::Format;
use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::canonical::CANONICAL;
use foreshock_operators::venues::coinbase::{COINBASE_ADVANCED_TRADE, COINBASE_EXCHANGE};

pub const TICKER: &str = r#"{"type":"ticker","sequence":38332655422,"product_id":"BTC-USD","price":"29940.91","open_24h":"31677.61","volume_24h":"27783.70216674","low_24h":"29308.01","high_24h":"31888","volume_30d":"778633.19135445","best_bid":"29940.90","best_bid_size":"0.03416000","best_ask":"29943.41","best_ask_size":"0.20000000","side":"sell","time":"2022-06-01T20:31:23.469151Z","trade_id":345622431,"last_size":"0.00016"}"#;
pub const MATCH: &str = r#"{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e","taker_order_id":"3c82abaa","side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}"#;
pub const HEARTBEAT: &str = r#"{"type":"heartbeat","last_trade_id":1052119293,"product_id":"BTC-USD","sequence":132235026653,"time":"2026-07-07T22:58:18.000000Z"}"#;
pub const ADVANCED_TICKER: &str = r#"{"channel":"ticker","client_id":"","timestamp":"2023-02-09T20:30:37.167359596Z","sequence_num":0,"events":[{"type":"update","tickers":[{"type":"ticker","product_id":"ETH-USDT","price":"21932.98","best_bid":"21931.98","best_bid_quantity":"8000.21","best_ask":"21933.98","best_ask_quantity":"8038.07770938"}]}]}"#;
pub const MARKET_TRADES: &str = r#"{"channel":"market_trades","client_id":"","timestamp":"2024-10-04T07:13:31.158696Z","sequence_num":2,"events":[{"type":"update","trades":[{"product_id":"ETH-USDT","trade_id":"22381691","price":"2375.56","size":"0.5","time":"2024-10-04T07:13:31.088388Z","side":"BUY"},{"product_id":"ETH-USDT","trade_id":"x-1","price":"2375.55","size":"1","time":"2024-10-04T07:13:31.088388Z","side":"UNKNOWN_ORDER_SIDE"}]}]}"#;
pub const SPOT_QUOTE: &str = r#"{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}"#;
pub const USDM_QUOTE: &str = r#"{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256314}}"#;
pub const COINM_QUOTE: &str = r#"{"stream":"bchusd_perp@bookTicker","data":{"u":167006084895,"e":"bookTicker","s":"BCHUSD_PERP","ps":"BCHUSD","b":"427.84","B":"24","a":"427.90","A":"669","T":1626916403864,"E":1626916403871}}"#;
pub const SPOT_TRADE: &str = r#"{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","b":88,"a":50,"T":1672515782135,"m":true,"M":true}"#;
pub const USDM_TRADE: &str = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256321,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}"#;
pub const SPOT_AGGREGATE: &str = r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1616176861895,"s":"BTCUSDT","a":640283266,"p":"58942.01000000","q":"0.00035600","f":716849523,"l":716849523,"T":1616176861893,"m":false,"M":true}}"#;
pub const USDM_AGGREGATE: &str = r#"{"e":"aggTrade","E":1626992741575,"a":16599292,"s":"CTKUSDT","p":"1.01100","q":"10","f":23961322,"l":23961322,"T":1626992741421,"m":false}"#;
pub const SPOT_DEPTH: &str = r#"{"stream":"nknusdt@depth@100ms","data":{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":499869750,"u":499869752,"b":[["0.3513","6195.0"]],"a":[]}}"#;
pub const USDM_DEPTH: &str = r#"{"e":"depthUpdate","E":1626992741037,"T":1626992741024,"s":"SUSHIUSDT","U":600859599090,"u":600859600917,"pu":600859598061,"b":[["7.5040","813"]],"a":[["7.6150","1563"]]}"#;
pub const PLAIN_QUOTE: &str = r#"{"type":"quote","exchange":"x","instrument":"BTC-USD","event_time":"2026-01-02T03:04:05.678901Z","sequence":7,"bid":1.0,"bid_size":2.0,"ask":1.1,"ask_size":3.0}"#;
pub const PLAIN_TRADE: &str = r#"{"type":"trade","exchange":"x","instrument":"BTC-USD","event_time":"2026-01-02T03:04:05Z","price":1.05,"size":0.1,"side":"buy"}"#;
pub const PLAIN_HEARTBEAT: &str =
    r#"{"type":"heartbeat","exchange":"x","instrument":"BTC-USD","event_time":"2026-01-02T03:04:05.678Z"}"#;

/// One message of each shape that has rows.
pub const WITH_ROWS: [(Format, &str); 15] = [
    (COINBASE_EXCHANGE, TICKER),
    (COINBASE_EXCHANGE, MATCH),
    (COINBASE_EXCHANGE, HEARTBEAT),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER),
    (COINBASE_ADVANCED_TRADE, MARKET_TRADES),
    (BINANCE, SPOT_QUOTE),
    (BINANCE, USDM_QUOTE),
    (BINANCE, COINM_QUOTE),
    (BINANCE, SPOT_TRADE),
    (BINANCE, USDM_TRADE),
    (BINANCE, SPOT_AGGREGATE),
    (BINANCE, USDM_AGGREGATE),
    (CANONICAL, PLAIN_QUOTE),
    (CANONICAL, PLAIN_TRADE),
    (CANONICAL, PLAIN_HEARTBEAT),
];
