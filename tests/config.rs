//! Configuration as its users meet it: files, environment, and what is refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshock::config::keys::{ConfigKey, KEYS};
use foreshock::config::{Config, Mode, check_config};
use foreshock::documents::duration;
use foreshock::documents::error::Origin;
use foreshock::documents::kind::ValueKind;
use foreshock::documents::yaml::Value;
use foreshock_dataflows::settings::{ClockChoice, InheritedLimit, InstrumentType, Unknown};
use foreshock_operators::row::Channel;
use foreshock_operators::rules::Direction;
use foreshock_operators::stages::{Priority, Signal};
use foreshock_operators::time::{MILLISECOND, SECOND};
use foreshock_operators::venues::VENUES;
use proptest::prelude::*;

/// A folder of files; errors about them are told without the folder's name.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text.as_bytes());
        }
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, files: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let files: Vec<PathBuf> = files.iter().map(|name| self.path(name)).collect();
        let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Config::load(&files, environment, Mode::Backtest)
            .map_err(|errors| errors.to_string().replace(&format!("{}/", self.0.path().display()), ""))
    }
}

fn load(yaml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    Folder::new(&[("my.yaml", yaml)]).load(&["my.yaml"], environment)
}

/// All lines of the error, in their order.
#[track_caller]
fn check_refused(yaml: &str, lines: &[&str]) {
    let errors = load(yaml, &[]).expect_err(yaml);
    assert_eq!(errors.lines().collect::<Vec<_>>(), lines, "{yaml}");
}

#[track_caller]
fn refusal_of_list(key: &str, yaml: &str) -> String {
    let main = format!("{key}: {{file: list.yaml}}\n");
    let folder = Folder::new(&[("my.yaml", &main), ("list.yaml", yaml)]);
    folder.load(&["my.yaml"], &[]).expect_err(yaml)
}

#[track_caller]
fn check_refused_list(key: &str, yaml: &str, lines: &[&str]) {
    let errors = refusal_of_list(key, yaml);
    assert_eq!(errors.lines().collect::<Vec<_>>(), lines, "{yaml}");
}

fn origin(config: &Config, path: &str) -> String {
    config.values.iter().find(|(key, _)| *key == path).unwrap().1.origin.to_string()
}

#[test]
fn the_defaults_are_those_of_the_file() {
    let config = Config::load(&[], [], Mode::Run).unwrap();
    let settings = &config.settings;
    assert_eq!(settings.parameters.features, Default::default());
    assert_eq!(settings.parameters.seconds, Default::default());
    assert_eq!(settings.parameters.order.reorder, 0);
    assert_eq!(settings.parameters.max_ahead, SECOND);
    assert_eq!(settings.instruments.max_jump, Some(5 * SECOND));
    assert_eq!(settings.instruments.gap_after, Some(5 * SECOND));
    assert_eq!(settings.instruments.exchanges["coinbase"].gap_after, InheritedLimit::After(60 * SECOND));
    assert_eq!(settings.instruments.exchanges["okx"].gap_after, InheritedLimit::Inherit);
    assert_eq!(settings.instruments.max, 100_000);
    assert_eq!(settings.parameters.model.variant(), "ml");
    assert_eq!(config.input.max_message_bytes, 8 << 20);
    assert_eq!(config.input.format, None);
    assert_eq!(config.backtest.chunk_bytes, 256 << 10);
    assert_eq!((config.log.json, config.log.level.as_str()), (false, "info"));
    assert!(config.values.iter().all(|(_, value)| value.origin == Origin::Default));
    assert_eq!(config.values.len(), KEYS.len());
}

#[test]
fn unlisted_instruments_are_taken_where_nobody_loses_by_it() {
    let unknown = |mode| Config::load(&[], [], mode).unwrap().settings.instruments.unknown;
    assert_eq!(unknown(Mode::Run), Unknown::DeadLetter);
    assert_eq!(unknown(Mode::Backtest), Unknown::Accept);
    assert_eq!(unknown(Mode::Demo), Unknown::Accept);
    let told = load("instruments: {unknown: deadletter}", &[]).unwrap();
    assert_eq!(told.settings.instruments.unknown, Unknown::DeadLetter);
}

#[test]
fn the_reference_workload_has_no_gaps() {
    let config = Config::load(&["config/reference.yaml".into()], [], Mode::Run).unwrap();
    let instruments = &config.settings.instruments;
    assert_eq!((instruments.gap_after, instruments.unknown), (None, Unknown::Accept));
    assert_eq!(instruments.exchanges["coinbase"].gap_after, InheritedLimit::Off);
}

#[test]
fn bundled_instruments_and_rules_are_read() {
    let config = Config::load(&[], [], Mode::Run).unwrap();
    let coin = config.settings.instruments.listed.iter().find(|i| i.symbol == "BTCUSD_PERP").unwrap();
    assert_eq!((coin.id.as_str(), coin.kind), ("BTC-USD-PERP", InstrumentType::Perpetual));
    assert_eq!((coin.contract_value, coin.inverse), (100.0, true));
    let rules = &config.settings.parameters.rules;
    assert_eq!(
        rules.iter().map(|r| &*r.name).collect::<Vec<_>>(),
        ["volatility_majors", "volatility", "spike_probability"]
    );
    assert_eq!((rules[0].priority, rules[0].zscore, rules[0].hold), (Priority::P2, Some(3.0), 5 * SECOND));
    assert_eq!(rules[2].signal, Signal::Probability);
}

#[test]
fn later_files_win_key_by_key_and_the_environment_over_all() {
    let folder = Folder::new(&[
        ("a.yaml", "features:\n  window: 10s\n  spread_window: 50\nzscore: {window: 40}\n"),
        ("b.yaml", "features:\n  window: 20s\nzscore:\n"),
    ]);
    let config = folder.load(&["a.yaml", "b.yaml"], &[]).unwrap();
    assert_eq!(config.settings.parameters.features.window, 20 * SECOND);
    assert_eq!(config.settings.parameters.features.spread_window, 50);
    assert_eq!(config.settings.parameters.seconds.zscore_window, 40);
    assert!(origin(&config, "features.window").ends_with("b.yaml:2"));
    assert!(origin(&config, "features.spread_window").ends_with("a.yaml:3"));
    let other = folder.load(&["b.yaml", "a.yaml"], &[("FORESHOCK_ZSCORE__WINDOW", "60")]).unwrap();
    assert_eq!(other.settings.parameters.features.window, 10 * SECOND);
    assert_eq!(other.settings.parameters.seconds.zscore_window, 60);
    assert_eq!(origin(&other, "zscore.window"), "environment variable FORESHOCK_ZSCORE__WINDOW");
}

#[test]
fn variables_take_every_kind_of_value() {
    let environment = [
        ("FORESHOCK_EXCHANGES__BINANCE_USDM__GAP_AFTER", "off"),
        ("FORESHOCK_EXCHANGES__BINANCE__CLOCK", "received"),
        ("FORESHOCK_EXCHANGES__BINANCE__QUOTE_CHANNEL", "bookTicker"),
        ("FORESHOCK_FEATURES__RETURN_HORIZONS", "1s, 5s,250s"),
        ("FORESHOCK_BACKTEST__CHUNK_BYTES", "65536"),
        ("FORESHOCK_INPUT__MAX_MESSAGE_BYTES", "1MiB"),
        ("FORESHOCK_INPUT__FORMAT", ""),
        ("FORESHOCK_KAFKA__CREATE_TOPICS", "false"),
        ("MODEL_VARIANT", "baseline"),
        ("LOG_LEVEL", "WARN,foreshock::kafka=debug"),
        ("UNRELATED", "x"),
    ];
    let config = load("", &environment).unwrap();
    let exchanges = &config.settings.instruments.exchanges;
    assert_eq!(exchanges["binance-usdm"].gap_after, InheritedLimit::Off);
    assert_eq!(exchanges["binance"].clock, ClockChoice::Received);
    assert_eq!(exchanges["binance"].quote_channel, Some(Channel::BookTicker));
    assert_eq!(config.settings.parameters.features.horizons, [SECOND, 5 * SECOND, 250 * SECOND]);
    assert_eq!((config.backtest.chunk_bytes, config.input.max_message_bytes), (65536, 1 << 20));
    assert!(!config.kafka.create_topics);
    assert_eq!(config.settings.parameters.model.variant(), "baseline");
    assert_eq!(config.log.level, "warn,foreshock::kafka=debug");
    let brackets = load("", &[("FORESHOCK_FEATURES__RETURN_HORIZONS", "[1s, 5s]")]).unwrap();
    assert_eq!(brackets.settings.parameters.features.horizons, [SECOND, 5 * SECOND]);
}

#[test]
fn the_full_name_of_a_variable_wins_over_the_short_one() {
    let both = [("MODEL_VARIANT", "baseline"), ("FORESHOCK_MODEL__VARIANT", "ml")];
    assert_eq!(load("", &both).unwrap().settings.parameters.model.variant(), "ml");
}

#[test]
fn unknown_and_wrong_variables_are_refused() {
    let environment = [
        ("FORESHOCK_FEATURS__WINDOW", "1s"),
        ("FORESHOCK_FEATURES__WINDOW", "60"),
        ("FORESHOCK_ZSCORE__WINDOW", "many"),
        ("FORESHOCK_FEATURES__RETURN_HORIZONS", "5s,1s"),
        ("MODEL_VARIANT", "basline"),
    ];
    let expected = "\
environment variable MODEL_VARIANT: model.variant: found \"basline\", expected one of ml, baseline; did you mean baseline?
environment variable FORESHOCK_FEATURES__RETURN_HORIZONS: features.return_horizons: found a list, expected a list of 1 to 8 durations such as [1s, 5s], ascending and distinct (1ms to 24h each)
environment variable FORESHOCK_FEATURES__WINDOW: features.window: found \"60\", expected a duration with a unit such as \"60s\" (1ms to 24h)
environment variable FORESHOCK_FEATURS__WINDOW: unknown, expected FORESHOCK_ and a key's path with __ between levels; did you mean FORESHOCK_FEATURES__WINDOW?
environment variable FORESHOCK_ZSCORE__WINDOW: zscore.window: found \"many\", expected an integer from 2 to 100000";
    assert_eq!(load("", &environment).unwrap_err(), expected);
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_are_not_ours() {
    let environment = [
        ("FORESHOCK_SERVICE_HOST", "10.0.0.1"),
        ("FORESHOCK_SERVICE_PORT_HTTP", "8080"),
        ("FORESHOCK_PORT", "tcp://10.0.0.1:8080"),
        ("FORESHOCK_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("FORESHOCK_API_SERVICE_HOST", "10.0.0.1"),
    ];
    load("", &environment).unwrap();
    assert!(load("", &[("FORESHOCK_PORT", "8080")]).is_err());
}

#[test]
fn every_bad_value_is_refused_with_what_is_allowed() {
    let length = "a duration with a unit such as \"60s\"";
    let horizons = "a list of 1 to 8 durations such as [1s, 5s], ascending and distinct (1ms to 24h each)";
    let cases = [
        ("features: {window: 60}", format!("features.window: found 60, expected {length} (1ms to 24h)")),
        ("features: {window: 0s}", format!("features.window: found \"0s\", expected {length} (1ms to 24h)")),
        ("features: {window: 25h}", format!("features.window: found \"25h\", expected {length} (1ms to 24h)")),
        ("features: {window: -1s}", format!("features.window: found \"-1s\", expected {length} (1ms to 24h)")),
        ("features: {window: }", format!("features.window: found nothing, expected {length} (1ms to 24h)")),
        ("features: {window: [1s]}", format!("features.window: found a list, expected {length} (1ms to 24h)")),
        ("features: {window: off}", format!("features.window: found \"off\", expected {length} (1ms to 24h)")),
        ("order: {reorder: 61m}", format!("order.reorder: found \"61m\", expected {length} (0ms to 1h)")),
        ("gaps: {after: true}", format!("gaps.after: found true, expected off or {length} (1ms to 24h)")),
        (
            "exchanges: {okx: {gap_after: inherits}}",
            format!(
                "exchanges.okx.gap_after: found \"inherits\", expected inherit or off or {length} (1ms to 24h); \
                 did you mean inherit?"
            ),
        ),
        ("features: {return_horizons: 5s}", format!("features.return_horizons: found \"5s\", expected {horizons}")),
        ("features: {return_horizons: []}", format!("features.return_horizons: found a list, expected {horizons}")),
        ("features: {return_horizons: [1s, 1000ms]}", format!("features.return_horizons: found a list, expected {horizons}")),
        ("features: {return_horizons: [5s, 1s]}", format!("features.return_horizons: found a list, expected {horizons}")),
        (
            "features: {return_horizons: [1s,2s,3s,4s,5s,6s,7s,8s,9s]}",
            format!("features.return_horizons: found a list, expected {horizons}"),
        ),
        ("zscore: {min_samples: 1}", "zscore.min_samples: found 1, expected an integer from 2 to 100000".into()),
        ("zscore: {window: 300.0}", "zscore.window: found 300.0, expected an integer from 2 to 100000".into()),
        ("zscore: {window: \"300\"}", "zscore.window: found \"300\", expected an integer from 2 to 100000".into()),
        (
            "zscore: {window: 20}",
            "zscore.min_samples: found 30, expected at most zscore.window, which is 20 (my.yaml:1)".into(),
        ),
        ("instruments: {max: 0}", "instruments.max: found 0, expected an integer from 1 to 1000000".into()),
        ("instruments: {max: 5}", "instruments.max: found 5, but the instruments file lists 30".into()),
        (
            "input: {max_message_bytes: 8MB}",
            "input.max_message_bytes: found \"8MB\", expected a size such as \"256KiB\" (1KiB to 256MiB)".into(),
        ),
        ("backtest: {chunk_bytes: 4095}", "backtest.chunk_bytes: found 4095, expected a size such as \"256KiB\" (4KiB to 4MiB)".into()),
        ("model: {sha256: abc}", "model.sha256: found \"abc\", expected a SHA-256 of 64 hex digits as text, or null".into()),
        (
            "log: {level: loud}",
            "log.level: found \"loud\", expected one of off, error, warn, info, debug, trace, or a list such as \
             \"info,foreshock=debug\""
                .into(),
        ),
        ("log: {format: 1}", "log.format: found 1, expected one of text, json".into()),
        (
            "alerts: {file: builtin:alert.yaml}",
            "alerts.file: found \"builtin:alert.yaml\", expected one of the built-in files foreshock.yaml, \
             instruments.yaml, alerts.yaml, reference.yaml, models/logistic.yaml, models/baseline.yaml; \
             did you mean alerts.yaml?"
                .into(),
        ),
        ("alerts: {file: no.yaml}", "alerts.file: could not read \"no.yaml\": No such file or directory (os error 2)".into()),
        ("alerts: {file: .}", "alerts.file: could not read \".\": it is a folder".into()),
        (
            "exchanges: {binanc: {clock: auto}}",
            "exchanges.binanc: unknown key, expected one of coinbase, binance, binance-usdm, binance-coinm, okx; \
             did you mean binance?"
                .into(),
        ),
        (
            "exchanges: {okx: {gap: 1s}}",
            "exchanges.okx.gap: unknown key, expected one of gap_after, max_jump, clock, quote_channel, trade_channel".into(),
        ),
        ("zscore: 4", "zscore: found 4, expected a section with window, min_samples".into()),
        ("gaps: {after: 1s}\ngaps: {after: 2s}", "gaps: found a second time, first at line 1".into()),
    ];
    for (yaml, problem) in &cases {
        let line = yaml.lines().count();
        // Resolved names of files are the only part that differs from folder to folder.
        let origin =
            if yaml.contains("window: 20}") { "default".to_owned() } else { format!("my.yaml:{line}") };
        check_refused(yaml, &[&format!("{origin}: {problem}")]);
    }
}

#[test]
fn limits_are_allowed_and_their_neighbours_are_not() {
    for key in KEYS.iter() {
        let (least, most, step) = match key.kind {
            ValueKind::Duration { min, max, .. } => (min, max, MILLISECOND),
            ValueKind::Integer { min, max } => (min, max, 1),
            ValueKind::Bytes { min, max } => (min as i64, max as i64, 1),
            _ => continue,
        };
        let is_good = |v: i64| {
            let value = match key.kind {
                ValueKind::Duration { .. } => Value::Text(duration::show(v)),
                _ => Value::Integer(v),
            };
            key.kind.read(&value).is_ok()
        };
        let good = [least - step, least, most, most + step].map(is_good);
        assert_eq!(good, [false, true, true, false], "{}", key.path);
    }
}

#[test]
fn buckets_of_latencies_are_set() {
    let buckets =
        |yaml: &str, environment: &[(&str, &str)]| load(yaml, environment).unwrap().metrics.latency_buckets;
    let default = buckets("", &[]);
    for millis in [45, 100, 150, 800, 1000] {
        assert!(default.contains(&Duration::from_millis(millis)), "{millis} ms");
    }
    let own = [10, 2_500, 45_000, 1_000_000, 3_600_000_000].map(Duration::from_micros);
    assert_eq!(buckets("metrics: {latency_buckets: [10us, 2500us, 45ms, 1s, 1h]}", &[]), own);
    let variable = [("FORESHOCK_METRICS__LATENCY_BUCKETS", "10us, 2500us,45ms,1s,1h")];
    assert_eq!(buckets("", &variable), own);
    let most: Vec<String> = (1..=50).map(|n| format!("{n}ms")).collect();
    assert_eq!(buckets(&format!("metrics: {{latency_buckets: [{}]}}", most.join(", ")), &[]).len(), 50);
    let one_more = format!("[{}, 51ms]", most.join(", "));
    for bad in [
        "[]",
        "1s",
        "[1s, 1s]",
        "[2s, 1s]",
        "[1000us, 1ms]",
        "[0us, 1s]",
        "[0ms]",
        "[-1s]",
        "[1.5ms]",
        "[100ns]",
        "[61m]",
        "[0.045, 0.1, 1]",
        "[1, 2]",
        "[.inf]",
        "null",
        "off",
        one_more.as_str(),
    ] {
        let errors = load(&format!("metrics: {{latency_buckets: {bad}}}"), &[]).expect_err(bad);
        let expected = ", expected a list of 1 to 50 durations such as [500us, 45ms, 1s], ascending and distinct (1us to 1h each)";
        assert!(
            errors.starts_with("my.yaml:1: metrics.latency_buckets: found ") && errors.ends_with(expected),
            "{errors}"
        );
    }
    assert!(load("features: {window: 5000us}", &[]).is_err(), "windows are whole milliseconds");
}

#[test]
fn all_errors_are_told_at_once_by_line() {
    let yaml =
        "features:\n  window: 60\n  windwo: 2s\nwindow: 3\ngaps.after: 3s\nlog: {level: loud, format: jsn}\n";
    check_refused(
        yaml,
        &[
            "my.yaml:2: features.window: found 60, expected a duration with a unit such as \"60s\" (1ms to 24h)",
            "my.yaml:3: features.windwo: unknown key, expected one of window, return_horizons, spread_window, \
             spread_min_samples; did you mean window?",
            "my.yaml:4: window: unknown key, expected one of input, instruments, order, gaps, exchanges, features, \
             zscore, model, alerts, job, kafka, topics, state, cluster, http, metrics, backtest, log; did you mean features.window?",
            "my.yaml:5: gaps.after: found a dot in a key, expected one section inside the other",
            "my.yaml:6: log.level: found \"loud\", expected one of off, error, warn, info, debug, trace, or a list \
             such as \"info,foreshock=debug\"",
            "my.yaml:6: log.format: found \"jsn\", expected one of text, json; did you mean json?",
        ],
    );
}

#[test]
fn a_value_that_a_later_file_replaces_must_be_good_too() {
    let folder = Folder::new(&[("a.yaml", "log: {format: xml}"), ("b.yaml", "log: {format: json}")]);
    assert_eq!(
        folder.load(&["a.yaml", "b.yaml"], &[]).unwrap_err(),
        "a.yaml:1: log.format: found \"xml\", expected one of text, json"
    );
}

#[test]
fn what_is_no_yaml_is_refused() {
    check_refused("a: [1", &["my.yaml:1: not readable as YAML: unclosed bracket '['"]);
    check_refused(
        "a: &x 1",
        &["my.yaml:1: found an anchor or alias (& or *), which configuration does not use"],
    );
    check_refused(
        "- 1",
        &[
            "my.yaml:1: found a list, expected a section with input, instruments, order, gaps, exchanges, features, zscore, model, alerts, job, kafka, topics, state, cluster, http, metrics, backtest, log",
        ],
    );
    load("", &[]).unwrap();
    load("# nothing\n", &[]).unwrap();
    load("\u{feff}log: {format: json}\n", &[]).unwrap();
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let folder = Folder::new(&[]);
    folder.write("latin.yaml", b"log:\n  # caf\xe9\n  format: json\n");
    fs::File::create(folder.path("huge.yaml")).unwrap().set_len(100 << 20).unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    let cases = [
        ("latin.yaml", "latin.yaml:2: found bytes that are not UTF-8"),
        ("huge.yaml", "huge.yaml: could not read \"huge.yaml\": it is larger than 4194304 bytes"),
        ("folder", "folder: could not read \"folder\": it is a folder"),
        ("none.yaml", "none.yaml: could not read \"none.yaml\": No such file or directory (os error 2)"),
    ];
    for (name, message) in cases {
        assert_eq!(folder.load(&[name], &[]).unwrap_err(), message);
    }
    assert!(
        Config::load(&["/dev/zero".into()], [], Mode::Run)
            .unwrap_err()
            .to_string()
            .ends_with("it is not a regular file")
    );
}

#[test]
fn paths_start_at_the_file_that_names_them() {
    let model = fs::read_to_string("config/models/logistic.yaml").unwrap();
    let folder = Folder::new(&[
        ("etc/my.yaml", "model: {ml: ../models/own.yaml}\nalerts: {file: rules.yaml}\n"),
        ("etc/rules.yaml", "rules: []\n"),
        ("models/own.yaml", &model.replace("-2", "-3")),
    ]);
    let config = folder.load(&["etc/my.yaml"], &[]).unwrap();
    assert!(config.settings.parameters.rules.is_empty());
    let shown = config.values.iter().find(|(key, _)| *key == "model.ml").unwrap().1.shown.to_string();
    assert!(shown.ends_with("/etc/../models/own.yaml\""), "{shown}");
    let relative =
        [("FORESHOCK_MODEL__ML", "config/models/logistic.yaml"), ("FORESHOCK_ALERTS__FILE", "no.yaml")];
    let errors = folder.load(&["etc/my.yaml"], &relative).unwrap_err();
    let expected = "environment variable FORESHOCK_ALERTS__FILE: alerts.file: could not read \"no.yaml\": \
                    No such file or directory (os error 2)";
    assert_eq!(errors, expected);
}

const ENTRY: &str = "exchange: okx, symbol: A-B, id: A-B, type: spot, base: A, quote: B";

#[test]
fn bad_instruments_are_refused() {
    let check = |entry: &str, problem: &str| {
        let yaml = format!("instruments:\n  - {{{entry}}}\n");
        check_refused_list("instruments", &yaml, &[&format!("list.yaml:2: instruments[0].{problem}")]);
    };
    let charset = "text of 1 to 64 letters, digits, \".\", \"_\" and \"-\"";
    check(&ENTRY.replace("id: A-B", "id: A B"), &format!("id: found \"A B\", expected {charset}"));
    check(&ENTRY.replace("id: A-B, ", ""), &format!("id: missing, expected {charset}"));
    let names = "text of 1 to 64 printable characters without quotes and backslashes";
    check(
        &ENTRY.replace("base: A", "base: 1"),
        &format!("base: found 1, expected {names}; put it in quotes to make it text"),
    );
    for symbol in ["'A\"B'", "'A\\B'", "\"A\\u200bB\"", &"x".repeat(65)] {
        let yaml =
            format!("instruments:\n  - {{{}}}\n", ENTRY.replace("symbol: A-B", &format!("symbol: {symbol}")));
        let refused = refusal_of_list("instruments", &yaml);
        assert!(refused.contains("symbol: found") && refused.contains(names), "{symbol}: {refused}");
    }
    check(
        &format!("{ENTRY}, contract_value: 0"),
        "contract_value: found 0, expected a finite number above 0",
    );
    check(
        &format!("{ENTRY}, contract_value: .nan"),
        "contract_value: found NaN, expected a finite number above 0",
    );
    check(&format!("{ENTRY}, inverse: yes"), "inverse: found \"yes\", expected true or false");
    check(
        &format!("{ENTRY}, inverse: true"),
        "type: found spot, which has no contracts, beside a contract_value other than 1 or inverse: true",
    );
    check(
        &format!("{ENTRY}, clock: recieved"),
        "clock: found \"recieved\", expected one of auto, exchange, received; did you mean received?",
    );
    check(
        &format!("{ENTRY}, channels: {{quote: trade}}"),
        "channels.quote: found \"trade\", expected one of auto, bookTicker, ticker",
    );
    check(
        &format!("{ENTRY}, channels: {{quot: ticker}}"),
        "channels.quot: unknown key, expected one of quote, trade; did you mean quote?",
    );
    check(
        &ENTRY.replace("okx", "binance-usdm"),
        "type: found spot on a futures exchange, or a contract on binance: its markets are binance (spot), \
         binance-usdm and binance-coinm (contracts)",
    );
    let twice = format!(
        "instruments:\n  - {{{ENTRY}}}\n  - {{{}}}\n  - {{{}}}\n",
        ENTRY.replace("id: A-B", "id: C"),
        ENTRY.replace("symbol: A-B", "symbol: C")
    );
    check_refused_list(
        "instruments",
        &twice,
        &[
            "list.yaml:3: instruments[1].symbol: found \"A-B\" of okx a second time, first at line 2",
            "list.yaml:4: instruments[2].id: found \"A-B\" of okx a second time, first at line 2",
        ],
    );
    check_refused_list(
        "instruments",
        "instruments: 3\n",
        &["list.yaml:1: instruments: found 3, expected a list"],
    );
    check_refused_list(
        "instruments",
        "instrument: []\n",
        &[
            "list.yaml:1: instruments: missing, expected a list",
            "list.yaml:1: instrument: unknown key, expected one of instruments; did you mean instruments?",
        ],
    );
    check_refused_list(
        "instruments",
        "instruments: [3]\n",
        &["list.yaml:1: instruments[0]: found 3, expected a section of keys and values"],
    );
}

#[test]
fn instruments_have_settings_of_their_own() {
    let yaml = format!(
        "instruments:\n  - {{{ENTRY}, gap_after: 9s, clock: received, channels: {{quote: ticker, trade: aggTrade}}}}\n"
    );
    let folder = Folder::new(&[("my.yaml", "instruments: {file: list.yaml}"), ("list.yaml", &yaml)]);
    let config = folder.load(&["my.yaml"], &[]).unwrap();
    let settings = &config.settings.instruments.listed[0].settings;
    assert_eq!(
        (settings.gap_after, settings.clock),
        (InheritedLimit::After(9 * SECOND), ClockChoice::Received)
    );
    assert_eq!(
        (settings.quote_channel, settings.trade_channel),
        (Some(Channel::Ticker), Some(Channel::AggTrade))
    );
}

const RULE: &str = "name: r, metric: mid, priority: P2, raise: {above: 2}, clear: 1";

#[test]
fn bad_rules_are_refused() {
    let check = |rule: &str, problem: &str| {
        let yaml = format!("rules:\n  - {{{rule}}}\n");
        check_refused_list("alerts", &yaml, &[&format!("list.yaml:2: rules[0].{problem}")]);
    };
    check(
        &RULE.replace("metric: mid", "metric: realized_vol"),
        "metric: found \"realized_vol\", expected one of spread_bps, mid, imbalance, realised_vol, trade_intensity, \
         probability; did you mean realised_vol?",
    );
    check(&RULE.replace("P2", "P4"), "priority: found \"P4\", expected one of P1, P2, P3; did you mean P1?");
    check(
        &RULE.replace("clear: 1", "clear: 3"),
        "clear: found 3, expected a level at or below the raise level 2",
    );
    check(&RULE.replace("above", "below"), "clear: found 1, expected a level at or above the raise level 2");
    check(&RULE.replace(", clear: 1", ""), "clear: missing, expected a finite number");
    check(&RULE.replace("clear: 1", "clear: -.inf"), "clear: found -inf, expected a finite number");
    check(
        &RULE.replace("above: 2", "above: 2, below: 0"),
        "raise: expected either above: LEVEL or below: LEVEL inside it",
    );
    check(&RULE.replace("{above: 2}", "{}"), "raise: expected either above: LEVEL or below: LEVEL inside it");
    check(&RULE.replace("{above: 2}", "2"), "raise: found 2, expected a section of keys and values");
    check(
        &RULE.replace("raise: {above: 2}, ", ""),
        "raise: missing, expected above: LEVEL or below: LEVEL inside it",
    );
    check(&format!("{RULE}, zscore: 0"), "zscore: found 0, expected a finite number above 0");
    check(
        &format!("{}, zscore: 3", RULE.replace("mid", "probability")),
        "zscore: found with the metric probability, which has no z-score",
    );
    check(
        &format!("{RULE}, critical: {{level: 2}}"),
        "critical.level: found 2, expected a level above the raise level 2",
    );
    check(
        &format!("{}, critical: {{level: 3}}", RULE.replace("P2", "P3")),
        "critical: found with priority P3, but only P2 alerts become P1",
    );
    check(
        &format!("{RULE}, for: 5"),
        "for: found 5, expected a duration with a unit such as \"60s\" (0ms to 24h)",
    );
    check(&format!("{RULE}, enabled: on"), "enabled: found \"on\", expected true or false");
    check(
        &format!("{RULE}, instruments: []"),
        "instruments: found a list, expected a list of patterns such as [\"binance:*\"]",
    );
    check(
        &format!("{RULE}, instruments: [BTC-USD]"),
        "instruments: found \"BTC-USD\", expected a pattern such as \"binance:*\" or \"*:BTC-USD\"",
    );
    check(
        &format!("{RULE}, cooldwon: 1s"),
        "cooldwon: unknown key, expected one of name, metric, instruments, priority, raise, clear, zscore, critical, for, \
         resolve_for, cooldown, enabled; did you mean cooldown?",
    );
    let twice = format!("rules:\n  - {{{RULE}}}\n  - {{{RULE}}}\n");
    check_refused_list(
        "alerts",
        &twice,
        &["list.yaml:3: rules[1].name: found \"r\" a second time, first at line 2"],
    );
}

#[test]
fn rules_have_defaults() {
    let yaml = format!("rules:\n  - {{{}}}\n", RULE.replace("above: 2", "below: 0.5"));
    let folder = Folder::new(&[("my.yaml", "alerts: {file: list.yaml}"), ("list.yaml", &yaml)]);
    let rule = folder.load(&["my.yaml"], &[]).unwrap().settings.parameters.rules[0].clone();
    assert_eq!((rule.direction, rule.raise, rule.clear), (Direction::Below, 0.5, 1.0));
    assert_eq!((rule.hold, rule.resolve_for, rule.cooldown, rule.enabled), (0, 0, 0, true));
    assert_eq!(rule.instruments, ["*:*"]);
}

#[test]
fn what_check_config_prints_is_a_config_of_the_same_meaning() {
    let yaml = "features: {window: 30s, return_horizons: [1s, 5s, 90s]}\norder: {reorder: 20ms}\n";
    let config = load(yaml, &[("MODEL_VARIANT", "baseline"), ("LOG_LEVEL", "off")]).unwrap();
    let mut printed = Vec::new();
    check_config(&config, &mut printed).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    let again = load(&printed, &[]).unwrap();
    assert_eq!(again.settings, config.settings);
    assert_eq!((again.input, again.backtest, again.log), (config.input, config.backtest, config.log));
    let line = |start: &str| printed.lines().find(|line| line.trim().starts_with(start)).unwrap();
    assert!(line("window: 30s").ends_with("my.yaml:1"));
    assert!(line("variant: baseline").ends_with("# environment variable MODEL_VARIANT"));
    assert!(line("max_ahead: 1s").ends_with("# default"));
    assert!(line("# model:").contains("volatility-zscore 1 (baseline), sha256 "));
}

#[test]
fn secrets_are_used_and_never_shown() {
    let yaml = "kafka:
  properties: {security.protocol: sasl_plaintext, sasl.password: hush1, ssl.key.pem: hush2}
  producer_properties: {sasl.oauthbearer.client.secret: hush3}
";
    let config = load(
        yaml,
        &[("FORESHOCK_KAFKA__CONSUMER_PROPERTIES", "ssl.keystore.password=hush4,fetch.min.bytes=1")],
    );
    let config = config.unwrap();
    assert_eq!(config.kafka.properties[1], ("sasl.password".to_owned(), "hush1".to_owned()));
    assert_eq!(config.kafka.consumer_properties[0].1, "hush4");
    let mut printed = Vec::new();
    check_config(&config, &mut printed).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    assert!(!printed.contains("hush"), "{printed}");
    assert!(
        printed.contains("security.protocol: sasl_plaintext") && printed.contains("fetch.min.bytes: "),
        "{printed}"
    );

    // Nor in errors.
    let wrong = load("kafka: {properties: {sasl.password: [hush]}}", &[]).unwrap_err().to_string();
    assert!(wrong.contains("kafka.properties") && !wrong.contains("hush"), "{wrong}");
}

#[test]
fn properties_on_which_promises_rest_are_refused() {
    let errors = load(
        "kafka: {properties: {group.id: x}, consumer_properties: {enable.auto.commit: true}}",
        &[("FORESHOCK_KAFKA__PRODUCER_PROPERTIES", "linger.ms=1,enable.idempotence=false")],
    );
    let errors = errors.unwrap_err().to_string();
    for expected in [
        "kafka.properties: found group.id, which job.name sets",
        "kafka.consumer_properties: found enable.auto.commit, which is the job's own to set",
        "kafka.producer_properties: found enable.idempotence, which is the job's own to set",
    ] {
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn topics_and_addresses_are_checked() {
    let errors = |yaml: &str| load(yaml, &[]).unwrap_err().to_string();
    let same = errors("topics: {features: ticks.raw}");
    assert!(same.contains("topics.features: found \"ticks.raw\", which is also in topics.input"), "{same}");
    for yaml in [
        "topics: {input: []}",
        "topics: {input: [a, a]}",
        "topics: {alerts: \"no spaces\"}",
        "topics: {alerts: \"..\"}",
        "kafka: {brokers: somewhere}",
        "kafka: {brokers: \"a:1,b:0\"}",
        "http: {listen: \"8000\"}",
        "kafka: {replication_factor: none}",
    ] {
        assert!(errors(yaml).contains(", expected "), "{yaml}");
    }
    let config = load("http: {listen: off}", &[]);
    // YAML 1.1 would read off as false; here it is text.
    assert!(config.unwrap().http.is_none());
    let config = load("topics: {input: [a, b]}\nkafka: {brokers: \"a:1, [::1]:2\"}", &[]).unwrap();
    assert_eq!((config.topics.input.len(), config.kafka.brokers.as_str()), (2, "a:1, [::1]:2"));
}

/// Keys of a YAML text that hold values, each with its value's text and the comment above it.
fn commented_keys(yaml: &str) -> BTreeMap<String, (String, String)> {
    let (mut keys, mut levels, mut comment) = (BTreeMap::new(), Vec::<&str>::new(), Vec::new());
    for line in yaml.lines() {
        if let Some(text) = line.trim().strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        if let Some((name, value)) = line.split_once(':') {
            levels.truncate((name.len() - name.trim_start().len()) / 2);
            levels.push(name.trim());
            if !value.is_empty() {
                keys.insert(levels.join("."), (value.trim().to_owned(), comment.join(" ")));
            }
        }
        comment.clear();
    }
    keys
}

#[test]
fn every_key_stands_in_the_default_file_with_a_sentence_and_no_other() {
    let keys = commented_keys(&fs::read_to_string("config/foreshock.yaml").unwrap());
    let mut expected: Vec<&str> = KEYS.iter().map(|key| key.path.as_str()).collect();
    expected.sort_unstable();
    assert_eq!(keys.keys().collect::<Vec<_>>(), expected);
    for (path, (_, comment)) in keys {
        let sentence =
            comment.ends_with('.') && comment.starts_with(char::is_uppercase) && comment.len() > 20;
        assert!(sentence, "{path} has no sentence above it, but {comment:?}");
    }
}

const DOC: &str = "docs/configuration.md";

/// The tables of docs/configuration.md: one a section, from the table of keys and the comments of the defaults.
fn documented_keys() -> String {
    let keys = commented_keys(&fs::read_to_string("config/foreshock.yaml").unwrap());
    let (mut doc, mut section) = (String::new(), "");
    let first =
        |key: &ConfigKey| !key.path.starts_with("exchanges.") || key.path.starts_with("exchanges.coinbase.");
    for key in KEYS.iter().filter(|key| first(key)) {
        let name = key.path.split('.').next().unwrap();
        if name != section {
            section = name;
            doc += &format!("\n### {section}\n\n| key | default | allowed | meaning |\n|---|---|---|---|\n");
        }
        let (mut default, comment) = keys[&key.path].clone();
        let other = keys.get(&key.path.replace("coinbase", "okx")).map(|(default, _)| default);
        default = match other.filter(|other| **other != default) {
            Some(other) => format!("`{default}` for coinbase, else `{other}`"),
            None => format!("`{default}`"),
        };
        let path = key.path.replace("coinbase", "<exchange>");
        doc += &format!("| `{path}` | {default} | {} | {comment} |\n", key.kind);
    }
    doc
}

#[test]
fn every_key_is_documented_with_its_limits() {
    let (start, end) = ("<!-- keys: start -->\n", "\n<!-- keys: end -->");
    let doc = fs::read_to_string(DOC).unwrap();
    let (head, rest) = doc.split_once(start).unwrap();
    let (written, tail) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(DOC, format!("{head}{start}{}{end}{tail}", documented_keys())).unwrap();
        return;
    }
    assert_eq!(written, documented_keys(), "UPDATE_GOLDEN=1 cargo test --release config:: writes {DOC} anew");
}

/// Said before anything is begun, and with the way out.
#[cfg(not(feature = "tls"))]
#[test]
fn tls_in_a_build_without_it_is_refused() {
    let feature = "which needs the cargo feature tls (cargo build --release --features tls)";
    for (key, property, value) in [
        ("kafka.properties", "security.protocol", "SASL_SSL"),
        ("kafka.consumer_properties", "security.protocol", "ssl"),
        ("kafka.producer_properties", "sasl.mechanism", "SCRAM-SHA-512"),
    ] {
        let yaml = format!("{{{key}: {{{property}: {value}}}}}").replace("kafka.", "kafka: {") + "}";
        let folder = Folder::new(&[("my.yaml", &yaml)]);
        let errors = Config::load(&[folder.path("my.yaml")], [], Mode::Run).unwrap_err().to_string();
        assert!(errors.contains(&format!("{key}: found {property}: {value}, {feature}")), "{errors}");
        // A backtest makes no client.
        load(&yaml, &[]).unwrap();
    }
    let plain = "kafka: {properties: {security.protocol: sasl_plaintext, sasl.mechanism: PLAIN}}";
    let folder = Folder::new(&[("my.yaml", plain)]);
    Config::load(&[folder.path("my.yaml")], [], Mode::Run).unwrap();
}

/// What config/foreshock.yaml has of exchanges, by the table of venues.
fn exchanges_section() -> String {
    let mut section = "exchanges:\n".to_owned();
    for exchange in VENUES.iter().flat_map(|venue| venue.exchanges) {
        let keys = [
            (exchange.about_gap, "gap_after", exchange.gap_after),
            (
                "How far a row without a receipt may lie ahead of the others; inherit takes input.max_jump.",
                "max_jump",
                "inherit",
            ),
            (exchange.about_clock, "clock", "auto"),
            (
                "The channel whose rows are ticks; auto takes the best that the feed carries: bookTicker, else ticker.",
                "quote_channel",
                "auto",
            ),
            (
                "The channel whose trades are counted; auto takes the best that the feed carries: trade, else aggTrade, else ticker.",
                "trade_channel",
                "auto",
            ),
        ];
        writeln!(section, "  {}:", exchange.name).unwrap();
        for (about, key, value) in keys {
            writeln!(section, "    # {about}\n    {key}: {value}").unwrap();
        }
    }
    section
}

#[test]
fn the_defaults_of_exchanges_are_those_of_their_venues() {
    const DEFAULTS: &str = "config/foreshock.yaml";
    let (start, end) = ("exchanges:\n", "\nfeatures:\n");
    let file = fs::read_to_string(DEFAULTS).unwrap();
    let (head, rest) = file.split_once(start).unwrap();
    let (written, tail) = rest.split_once(end).unwrap();
    let section = exchanges_section();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(DEFAULTS, format!("{head}{section}{end}{tail}")).unwrap();
        return;
    }
    assert_eq!(
        format!("{start}{written}"),
        section,
        "UPDATE_GOLDEN=1 cargo test --release config:: writes {DEFAULTS} anew"
    );
}

#[test]
fn the_documents_examples_are_what_the_program_says() {
    let doc = fs::read_to_string(DOC).unwrap();
    let block = |name: &str| {
        let (_, rest) = doc.split_once(&format!("<!-- {name} -->\n```")).unwrap_or_else(|| panic!("{name}"));
        rest.split_once('\n').unwrap().1.split_once("```").unwrap().0
    };
    let errors = load(block("bad config"), &[]).unwrap_err();
    assert_eq!(format!("{errors}\n"), block("its errors"));
    let folder = Folder::new(&[("my.yaml", "alerts: {file: list.yaml}"), ("list.yaml", block("a rule"))]);
    folder.load(&["my.yaml"], &[]).unwrap();
    let folder =
        Folder::new(&[("my.yaml", "instruments: {file: list.yaml}"), ("list.yaml", block("an instrument"))]);
    folder.load(&["my.yaml"], &[]).unwrap();
}

/// The words after "expected one of" in the last line of an error.
fn allowed(errors: &str) -> Vec<String> {
    let (_, words) = errors.lines().last().unwrap().split_once("expected one of ").unwrap();
    words.split(';').next().unwrap().split(", ").map(str::to_owned).collect()
}

#[test]
fn every_field_of_instruments_and_rules_is_documented() {
    let list = |key: &str, yaml: &str| {
        let main = format!("{key}: {{file: list.yaml}}");
        allowed(&Folder::new(&[("my.yaml", &main), ("list.yaml", yaml)]).load(&["my.yaml"], &[]).unwrap_err())
    };
    let mut fields = list("instruments", &format!("instruments:\n  - {{{ENTRY}, x: 1}}\n"));
    fields.extend(list("alerts", &format!("rules:\n  - {{{RULE}, x: 1}}\n")));
    fields.extend(list("alerts", &format!("rules:\n  - {{{}}}\n", RULE.replace("mid", "x"))));
    assert!(fields.len() > 20, "{fields:?}");
    let doc = fs::read_to_string(DOC).unwrap();
    for field in fields {
        let written = doc.contains(&format!("`{field}`")) || doc.contains(&format!("`{field}."));
        assert!(written, "{DOC} tells nothing of {field}");
    }
}

/// Places and bytes to change in a text.
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, Option<u8>)>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\n :-#[]{},\"'&*!|>%@0.e\t".to_vec())];
    prop::collection::vec((any::<prop::sample::Index>(), prop::option::weighted(0.7, byte)), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn broken_files_never_panic(which in 0..5usize, changes in mutations()) {
        let files = ["foreshock.yaml", "instruments.yaml", "alerts.yaml", "models/logistic.yaml", "models/baseline.yaml"];
        let mut bytes = fs::read(Path::new("config").join(files[which])).unwrap();
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            match byte {
                Some(byte) => bytes[at] = byte,
                None => { bytes.remove(at); }
            }
        }
        let folder = Folder::new(&[("my.yaml", [
            "{}", "instruments: {file: x.yaml}", "alerts: {file: x.yaml}", "model: {ml: x.yaml}",
            "model: {baseline: x.yaml, variant: baseline}",
        ][which])]);
        folder.write("x.yaml", &bytes);
        let files: &[&str] = if which == 0 { &["x.yaml"] } else { &["my.yaml"] };
        if let Err(errors) = folder.load(files, &[]) {
            prop_assert!(errors.lines().all(|line| line.contains(": ")), "{errors}");
        }
    }
}
