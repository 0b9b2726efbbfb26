//! Files as people have them: empty, arrays, archives, cut off, still being written, or of another kind altogether.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::process::{Running, await_that};
use crate::support::{Backtest, Ended, Files, Ran, assert_same, data, finish, foreshock, slice};

const USDM: &str = "btcusdt-usdm.log.zst";

/// A quote of the canonical format, a second after the one before.
fn quote(second: usize) -> String {
    format!(
        r#"{{"type":"quote","exchange":"x","instrument":"A","event_time":"2026-01-02T00:{:02}:{:02}Z","bid":1,"ask":2}}"#,
        second / 60,
        second % 60
    )
}

fn quotes(count: usize) -> Vec<String> {
    (0..count).map(quote).collect()
}

/// The lines of that many quotes.
fn plain(count: usize) -> Vec<u8> {
    (quotes(count).join("\n") + "\n").into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A zip archive of these files, stored or deflated.
fn zip(files: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in files {
        if name.ends_with('/') {
            writer.add_directory(name.trim_end_matches('/'), options).unwrap();
            continue;
        }
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A backtest of files of these names and contents, in this order.
fn backtest(files: &[(&str, Vec<u8>)], args: &[&str]) -> (Ended, Files) {
    let folder = Files::new();
    let mut command = foreshock();
    command.arg("backtest").args(args);
    for (name, bytes) in files {
        command.arg(folder.add(name, bytes));
    }
    (finish(command, None), folder)
}

#[track_caller]
fn check_said(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// It fails, with one line that says all of this, and leaves no outputs.
#[track_caller]
fn check_refused(files: &[(&str, Vec<u8>)], args: &[&str], expected: &[&str]) {
    let (ended, _) = backtest(files, args);
    let names: Vec<_> = files.iter().map(|(name, _)| name).collect();
    assert_eq!(ended.status, Some(1), "{names:?} {args:?}: {}", ended.stderr);
    let error = ended.stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: "), "{}", ended.stderr);
    check_said(error, expected);
}

/// It reads so many ticks.
#[track_caller]
fn check_ticks(files: &[(&str, Vec<u8>)], args: &[&str], ticks: i64) -> Ended {
    let (ended, _) = backtest(files, &[&["--json"], args].concat());
    let names: Vec<_> = files.iter().map(|(name, _)| name).collect();
    assert_eq!(ended.status, Some(0), "{names:?} {args:?}: {}", ended.stderr);
    let summary: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(summary["rows"]["ticks"], ticks, "{names:?} {args:?}: {summary}");
    assert_eq!(summary["messages"]["deadlettered"], 0, "{names:?} {args:?}: {summary}");
    ended
}

// Empty files.

#[test]
fn empty_files_are_told_of_and_passed_over() {
    let blank = b" \n\r\n\t\n".to_vec();
    let many_blank = vec![b'\n'; 1 << 20];
    let kinds = [
        ("empty", Vec::new()),
        ("empty.gz", Vec::new()),
        ("of-nothing.gz", gzip(b"")),
        ("of-nothing.zst", zstd(b"")),
        ("blank", blank.clone()),
        ("blank.gz", gzip(&blank)),
        ("blank.zst", zstd(&blank)),
        ("many-blank", many_blank),
        ("mark", b"\xef\xbb\xbf".to_vec()),
        ("array", b"[]".to_vec()),
        ("array-of-lines", b"[\n]\n".to_vec()),
        ("files.zip", zip(&[], zip::CompressionMethod::Stored)),
        ("empty-file.zip", zip(&[("a.ndjson", b"")], zip::CompressionMethod::Stored)),
    ];
    for (name, bytes) in &kinds {
        let (empty, full) = ((*name, bytes.clone()), ("rows.ndjson", plain(3)));
        for args in [&[][..], &["--format=canonical"], &["-w2"]] {
            let ended = check_ticks(&[empty.clone(), full.clone()], args, 3);
            check_said(&ended.stderr, &[name, "is passed over"]);
            check_ticks(&[full.clone(), empty.clone()], args, 3);
            check_ticks(&[full.clone(), empty.clone(), ("more/rows.ndjson", plain(3))], args, 6);
            check_refused(std::slice::from_ref(&empty), args, &[name, "there is no message to read"]);
        }
        check_refused(&[empty.clone(), ("other", Vec::new())], &[], &[name, "other\" is empty"]);
    }
}

/// Sources of rows behind an empty file are those of their own.
#[test]
fn an_empty_file_changes_no_output() {
    let files = Files::new();
    let (empty, rows) = (files.add("empty", ""), files.add("rows.ndjson", plain(90)));
    let more = files.add("more.ndjson", plain(90));
    for workers in [1, 2] {
        let with = Backtest::of([&rows, &empty, &more]).workers(workers).run();
        let without = Backtest::of([&rows, &more]).workers(workers).run();
        assert_eq!(with.outputs, without.outputs);
    }
}

// Arrays.

fn deadletters(ran: &Ran) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    ran.records("deadletter").iter().map(|row| (text(&row["reason"]), text(&row["source"]))).collect()
}

#[test]
fn arrays_are_read() {
    let pretty = |text: &str| -> String {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    let lines = quotes(500);
    let one_line = format!("[{}]", lines.join(","));
    let half = lines.len() / 2;
    let pages = format!("[{}]\n[{}]\n", lines[..half].join(","), lines[half..].join(","));
    let forms = [
        ("one-line", one_line.clone()),
        ("line-break", one_line.clone() + "\n"),
        ("spaces", format!("  {} \n\n", one_line.replace("},{", "} , {"))),
        ("a-line-each", format!("[\n{}\n]\n", lines.join(",\n"))),
        ("windows", format!("[\r\n{}\r\n]\r\n", lines.join(",\r\n"))),
        ("commas-first", format!("[{}\n]", lines.join("\n,"))),
        ("pretty", pretty(&one_line)),
        ("mark", format!("\u{feff}{one_line}")),
        ("pages", pages),
        ("inside", lines.join(",")),
        ("inside-pretty", pretty(&one_line).trim_matches(['[', ']']).trim().to_owned()),
        ("no-line-breaks", lines.concat()),
        ("comma-at-end", lines.iter().map(|line| format!("{line},\n")).collect()),
        ("comma-but-last", lines.join(",\n")),
        ("windows-commas", lines.join(",\r\n") + "\r\n"),
        ("comma-first", lines.join("\n,")),
        ("tail-of-an-array", lines.join(",\n") + "\n]\n"),
    ];
    let expected = Backtest::of_stdin(plain(500)).run();
    for (name, text) in forms {
        if name == "inside-pretty" {
            // Objects that span lines are named: see below.
            continue;
        }
        let files = Files::new();
        for (file, bytes) in [
            (format!("{name}.json"), text.clone().into_bytes()),
            (format!("{name}.json.gz"), gzip(text.as_bytes())),
            (format!("{name}.zip"), zip(&[("a.json", text.as_bytes())], zip::CompressionMethod::Deflated)),
        ] {
            for workers in [1, 3] {
                let path = files.add(&file, &bytes);
                let ran = Backtest::of([&path]).workers(workers).run();
                assert_eq!(ran.account(), expected.account(), "{file}");
                assert_same_but_names(&ran, &expected, &file);
            }
        }
        let piped = Backtest::of_stdin(text).run();
        assert_same(&piped, &expected);
    }
}

/// The same rows, from the same places of files of other names.
#[track_caller]
fn assert_same_but_names(one: &Ran, other: &Ran, what: &str) {
    let rows = |ran: &Ran, kind: &str| -> Vec<serde_json::Value> {
        let mut rows = ran.records(kind);
        for row in &mut rows {
            if let Some(source) = row["source"].as_str() {
                let place: Vec<&str> = source.rsplitn(3, '/').take(2).collect();
                row["source"] = place.join("/").into();
            }
        }
        rows
    };
    for kind in crate::support::kinds() {
        assert_eq!(rows(one, kind), rows(other, kind), "{what}: {kind}");
    }
}

#[test]
fn a_place_in_an_array_counts_its_elements() {
    let mut lines = quotes(5);
    lines[2] = lines[2].replace("\"bid\":1", "\"bid\":3");
    lines[3] = "17".to_owned();
    let files = Files::new();
    let path = files.add("a.json", format!("[\n  {}\n]", lines.join(",\n\n")));
    let ran = Backtest::of([&path]).run();
    let expected = [("crossed", "a.json/3/0"), ("wrong_type", "a.json/4/0")]
        .map(|(why, at)| (why.to_owned(), at.to_owned()));
    assert_eq!(deadletters(&ran), expected);
    // In errors too.
    let broken: Vec<String> = (0..3).map(|number| format!("{{\"type\":{number}}}")).collect();
    check_refused(
        &[("b.json", format!("[{}]", broken.join(",")).into_bytes())],
        &["--format=canonical"],
        &["none of 3 messages", "\"b.json\", element 1: wrong_type"],
    );
}

/// An element may be as long as a message, and no longer; what is longer harms no other.
#[test]
fn long_elements() {
    let long = quote(1).replace("\"bid\"", &format!("\"note\":\"{}\",\"bid\"", "x".repeat(3 << 20)));
    let text = format!("[{},{long},{}]", quote(0), quote(2));
    let ran = Backtest::of_stdin(text).env("FORESHOCK_INPUT__MAX_MESSAGE_BYTES", "1MiB").run();
    assert_eq!((ran.count("rows.ticks"), ran.count("deadletter.too_large")), (2, 1));
}

#[test]
fn an_array_that_is_cut_off() {
    let text = format!("[{}", quotes(3).join(","));
    check_refused(
        &[("a.json", text.as_bytes()[..text.len() - 9].to_vec())],
        &[],
        &["element 3 is cut off", "--take-whole"],
    );
    check_refused(&[("a.json", text.clone().into())], &[], &["no end behind its element 3", "--take-whole"]);
    check_ticks(&[("a.json", text.as_bytes()[..text.len() - 9].to_vec())], &["--take-whole"], 2);
    check_ticks(&[("a.json", text.into())], &["--take-whole"], 3);
}

// Archives.

#[test]
fn zip_archives_are_read() {
    use zip::CompressionMethod::{Deflated, Stored};
    let rows = |from: usize, to: usize| {
        (from..to).map(|second| quote(second) + "\n").collect::<String>().into_bytes()
    };
    let nested = gzip(&rows(60, 90));
    for method in [Stored, Deflated] {
        let archive = zip(
            &[
                ("day/", b""),
                ("day/1.ndjson", &rows(0, 30)),
                ("__MACOSX/day/._1.ndjson", b"\0\x05\x16\x07"),
                (".DS_Store", b"\0\0\0\x01Bud1"),
                ("day/2.ndjson", &rows(30, 60)),
                ("3.ndjson.gz", &nested),
                ("none.ndjson", b""),
            ],
            method,
        );
        let files = Files::new();
        let path = files.add("days.zip", &archive);
        for workers in [1, 2] {
            let ran = Backtest::of([&path]).workers(workers).run();
            let plain = Backtest::of_stdin(plain(90)).run();
            assert!(!ran.outputs["features"].is_empty());
            for kind in ["metrics", "gaps", "alerts"] {
                assert_eq!(ran.outputs[kind], plain.outputs[kind], "{kind}");
            }
            assert_eq!(ran.count("rows.ticks"), 90);
        }
    }
    // Where a row comes from.
    let broken = [rows(0, 2), b"{\n".to_vec()].concat();
    let files = Files::new();
    let path = files.add("x.zip", zip(&[("a/b.ndjson", &broken)], Deflated));
    assert_eq!(deadletters(&Backtest::of([path]).run())[0].1, "x.zip/a/b.ndjson/3/0");
}

#[test]
fn archives_that_cannot_be_read_are_named() {
    use zip::CompressionMethod::{Deflated, Stored};
    let rows = plain(30);
    let archive = zip(&[("a.ndjson", &rows)], Deflated);
    check_refused(&[("cut.zip", archive[..archive.len() - 30].to_vec())], &[], &["cut.zip", "zip -FF"]);
    // The flag of encryption, in both of its headers.
    let mut encrypted = archive.clone();
    let central = encrypted.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    (encrypted[6], encrypted[central + 8]) = (encrypted[6] | 1, encrypted[central + 8] | 1);
    check_refused(&[("e.zip", encrypted)], &[], &["\"a.ndjson\" in", "e.zip\" is encrypted", "unzip -P"]);
    for (method, name) in
        [(9, "deflate64"), (12, "bzip2"), (14, "lzma"), (98, "ppmd"), (77, "a method that we don't know")]
    {
        let mut odd = archive.clone();
        (odd[8], odd[central + 10]) = (method, method);
        check_refused(&[("m.zip", odd)], &[], &[name, "expected deflate, zstd or nothing", "7z x -so"]);
    }
    let mut damaged = zip(&[("a.ndjson", &rows)], Stored);
    damaged[60] ^= 1;
    check_refused(&[("d.zip", damaged)], &[], &["d.zip/a.ndjson", "checksum"]);
    let sheet = zip(&[("[Content_Types].xml", b"<x/>"), ("xl/workbook.xml", b"<x/>")], Deflated);
    check_refused(&[("t.xlsx", sheet)], &[], &["Office document"]);
    let inner = zip(&[("inner.zip", &archive)], Stored);
    check_refused(&[("outer.zip", inner)], &[], &["outer.zip/inner.zip", "zip archive"]);
    let table = zip(&[("BTCUSDT-trades.csv", b"1,2.0,3.0,4.0,1767312000000000,True,True\n")], Deflated);
    check_refused(&[("t.zip", table)], &[], &["BTCUSDT-trades.csv\", line 1, is CSV", "unzip -p", "| awk"]);
    let mut piped = foreshock();
    piped.args(["backtest", "-"]);
    check_said(&finish(piped, Some(archive)).stderr, &["standard input is a zip archive", "bsdtar -xOf -"]);
}

// Files of other kinds.

fn wide(text: &[u8], big: bool, mark: bool) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
    units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

/// Each is named for what it is, with the way out, whether or not a format was named.
#[test]
fn files_of_other_kinds_are_named() {
    let rows = plain(30);
    let tar = {
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"a.ndjson");
        header[257..263].copy_from_slice(b"ustar\0");
        [header, rows.clone(), vec![0; 1_024]].concat()
    };
    let pretty: Vec<u8> = {
        let values: Vec<serde_json::Value> =
            quotes(3).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        values
            .iter()
            .map(|value| serde_json::to_string_pretty(value).unwrap() + "\n")
            .collect::<String>()
            .into()
    };
    let python = quotes(3).join("\n").replace('"', "'").into_bytes();
    let quoted: String = quotes(3).iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    let logged: String =
        quotes(3).iter().map(|line| format!("2026-01-02 00:00:00,5 INFO {line}\n")).collect();
    let events: String = quotes(3).iter().map(|line| format!("data: {line}\n\n")).collect();
    let wrapped = format!("{{\"ok\":true,\"data\":[{}]}}", quotes(3).join(","));
    let cases: [(&str, Vec<u8>, &[&str]); 33] = [
        ("a.bz2", b"BZh91AY&SY....".to_vec(), &["is compressed with bzip2", "bzip2 -dc < "]),
        ("a.xz", b"\xfd7zXZ\0\0\x04....".to_vec(), &["compressed with xz", "xz -dc < "]),
        ("a.lz4", b"\x04\x22\x4d\x18....".to_vec(), &["compressed with lz4", "lz4 -dc < "]),
        ("a.7z", b"7z\xbc\xaf\x27\x1c....".to_vec(), &["a 7z archive", "7z x -so "]),
        ("a.rar", b"Rar!\x1a\x07\x01\0....".to_vec(), &["a rar archive"]),
        ("a.tar", tar.clone(), &["a tar archive", "tar -xOf - < "]),
        ("a.tgz", gzip(&tar), &["a gzip file, is a tar archive", "gzip -dc < ", "| tar -xOf -"]),
        ("a.gz.gz", gzip(&gzip(&rows)), &["compressed twice", "gzip -dc < ", "| gzip -dc |"]),
        ("a.parquet", b"PAR1\x15\x04....".to_vec(), &["a Parquet file", "canonical format"]),
        ("a.arrow", b"ARROW1\0\0....".to_vec(), &["an Arrow file"]),
        ("a.avro", b"Obj\x01....".to_vec(), &["Avro"]),
        ("a.npy", b"\x93NUMPY\x01\0....".to_vec(), &["NumPy"]),
        ("a.pcap", b"\xd4\xc3\xb2\xa1\x02\0\x04\0....".to_vec(), &["a capture of network packets"]),
        ("a.pcapng", b"\x0a\x0d\x0d\x0a....".to_vec(), &["a capture of network packets"]),
        ("a.db", b"SQLite format 3\0....".to_vec(), &["an SQLite database"]),
        ("a.pkl", b"\x80\x04\x95....".to_vec(), &["a pickle of Python's"]),
        ("le-mark.txt", wide(&rows, false, true), &["text in UTF-16", "iconv -f UTF-16 -t UTF-8 < "]),
        ("be-mark.txt", wide(&rows, true, true), &["text in UTF-16", "iconv -f UTF-16 -t UTF-8 < "]),
        ("le.txt", wide(&rows, false, false), &["text in UTF-16LE", "iconv -f UTF-16LE -t UTF-8 < "]),
        ("be.txt", wide(&rows, true, false), &["text in UTF-16BE", "iconv -f UTF-16BE -t UTF-8 < "]),
        ("wide.gz", gzip(&wide(&rows, false, true)), &["text in UTF-16", "gzip -dc < ", "| iconv -f UTF-16"]),
        ("zeros", vec![0; 4_096], &["binary data"]),
        ("pretty.json", pretty.clone(), &["line 1, is JSON whose objects span several lines", "jq -c . < "]),
        ("wrapped.json", wrapped.into(), &["as a list in \"data\"", "jq -c '.[\"data\"][]' < "]),
        ("python.txt", python, &["line 1, is what Python prints", "python3 -c "]),
        ("quoted.json", quoted.into(), &["texts in quotes", "jq -r . < "]),
        ("app.log", logged.into(), &["line 1, is text before a message", "sed 's/^[^{]*//' < "]),
        ("events.txt", events.into(), &["server-sent events", "sed -n"]),
        ("page.html", b"<!DOCTYPE html>\n<html>\n".to_vec(), &["line 1, is HTML or XML"]),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(), &["git lfs pull"]),
        (
            "klines.json",
            b"[[1499040000000,\"0.01\"],[1499040060000,\"0.02\"]]".to_vec(),
            &["elements are no objects"],
        ),
        (
            "other.csv",
            b"a;b;c\n1;2;3\n".to_vec(),
            &["line 1, is a table of text", "with the columns a, b, c"],
        ),
        ("after-blank.csv", b"\n\na,b,c\n1,2,3\n".to_vec(), &["line 3, is CSV with the columns a, b, c"]),
    ];
    for (name, bytes, expected) in cases {
        let expected = [&[name][..], expected].concat();
        for args in [&[][..], &["--format=canonical"]] {
            check_refused(&[(name, bytes.clone())], args, &expected);
            // One that is right beside it doesn't hide it.
            check_refused(&[("rows.ndjson", rows.clone()), (name, bytes.clone())], args, &expected);
        }
    }
    // One message before it, and it is a file of ours with lines that are refused.
    let (ended, _) = backtest(&[("mixed", [rows, pretty].concat())], &[]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
}

/// Whether a program can be run here.
fn is_there(program: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("command -v {program}")).stdout(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
}

/// The command that an error names makes of the file what is read.
#[test]
fn the_way_out_leads_out() {
    #[track_caller]
    fn check(name: &str, bytes: Vec<u8>, ticks: i64, trades: i64, needs: &[&str]) {
        if !needs.iter().all(|program| is_there(program)) {
            println!("skipped: {needs:?} for {name}");
            return;
        }
        let (ended, _files) = backtest(&[(name, bytes)], &[]);
        assert_eq!(ended.status, Some(1), "{name}: {}", ended.stderr);
        let (_, command) =
            ended.stderr.trim_end().split_once("; try ").unwrap_or_else(|| panic!("{}", ended.stderr));
        let command = command.strip_suffix(" | foreshock backtest -").unwrap_or_else(|| panic!("{command}"));
        let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let ran = Backtest::of_stdin(output.stdout.clone()).run();
        let found = (ran.count("rows.ticks"), ran.count("rows.applied"));
        assert_eq!(found, (ticks, trades), "{command}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let rows = plain(30);
    let filtered = |program: &str, args: &[&str]| -> Vec<u8> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if is_there(program) { finish(command, Some(plain(30))).stdout } else { Vec::new() }
    };
    for (name, program) in [("a b.bz2", "bzip2"), ("a.xz", "xz"), ("it's.lz4", "lz4")] {
        let packed = filtered(program, &["-c"]);
        if !packed.is_empty() {
            check(name, packed, 30, 0, &[program]);
        }
    }
    check("le.txt", wide(&rows, false, false), 30, 0, &["iconv"]);
    check("mark.txt", wide(&rows, true, true), 30, 0, &["iconv"]);
    let pretty: String = quotes(30)
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|value| serde_json::to_string_pretty(&value).unwrap() + "\n")
        .collect();
    check("pretty.json", pretty.into(), 30, 0, &["jq"]);
    check("wrapped.json", format!("{{\"data\":[{}]}}", quotes(30).join(",")).into(), 30, 0, &["jq"]);
    let logged: String = quotes(30).iter().map(|line| format!("INFO {line}\n")).collect();
    check("app.log", logged.into(), 30, 0, &["sed"]);
    let python = quotes(30).join("\n").replace('"', "'");
    check("python.txt", python.into(), 30, 0, &["python3"]);
    let zipped = zip(&[("a.txt", &wide(&rows, false, true))], zip::CompressionMethod::Deflated);
    check("wide.zip", zipped, 30, 0, &["unzip", "iconv"]);
    let (tardis, binance) = (tardis_quotes(), binance_trades());
    check("tardis.csv", tardis.replace('\n', "\r\n").into(), 2, 0, &["awk"]);
    check("tardis.csv", tardis.into(), 2, 0, &["awk"]);
    check("tardis-trades.csv", tardis_trades().into(), 0, 2, &["awk"]);
    check("BTCUSDT-trades-2026-01-02.csv", binance.into(), 0, 2, &["awk"]);
    let header = "id,price,qty,quote_qty,time,is_buyer_maker\n";
    let of_futures = format!(
        "{header}1,90000.0,0.5,45000.0,1767312000000,true\n2,90000.0,0.5,45000.0,1767312000001,false\n"
    );
    check("BTCUSDT-trades.csv", of_futures.into(), 0, 2, &["awk"]);
    let aggregated =
        "1,90000.0,0.5,1,1,1767312000000000,True,True\n2,90000.0,0.5,2,3,1767312000000001,False,True\n";
    check("BTCUSDT-aggTrades.csv", aggregated.into(), 0, 2, &["awk"]);
}

fn tardis_quotes() -> String {
    let header = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n";
    let row = |second: u32| {
        format!(
            "binance-futures,BTCUSDT,176731200{second}000000,176731200{second}005000,1.5,90001,90000,2.1\n"
        )
    };
    format!("{header}{}{}", row(0), row(1))
}

fn tardis_trades() -> String {
    let header = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n";
    let row = |second: u32| {
        format!(
            "binance-futures,BTCUSDT,176731200{second}000000,176731200{second}005000,{second},buy,90001,1.5\n"
        )
    };
    format!("{header}{}{}", row(0), row(1))
}

fn binance_trades() -> String {
    let row = |number: u32| {
        format!("435891000{number},90000.00000000,0.00058000,52.20000000,176731200000000{number},True,True\n")
    };
    format!("{}{}", row(1), row(2))
}

// Runs in which most is refused.

#[test]
fn a_run_in_which_most_is_refused_ends_with_a_warning() {
    let mut lines = quotes(10);
    for line in &mut lines[..6] {
        *line = line.replace("\"bid\":1", "\"bid\":3");
    }
    let files = [("odd.ndjson", (lines.join("\n") + "\n").into_bytes())];
    let (ended, _) = backtest(&files, &[]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let printed = String::from_utf8(ended.stdout).unwrap();
    let last = printed.lines().last().unwrap();
    assert!(last.starts_with("warning     60 % of what was read was refused (6 of 10 "), "{printed}");
    check_said(last, &["6 of them as crossed", "\"odd.ndjson\", line 1: crossed", "--emit deadletter"]);
    let (ended, _) = backtest(&files, &["--json"]);
    check_said(ended.stderr.lines().last().unwrap(), &["WARN", "60 % of what was read was refused"]);
    // Not where it is half of them, or few.
    lines[0] = quote(0);
    let (ended, _) = backtest(&[("odd.ndjson", lines.join("\n").into_bytes())], &[]);
    assert!(!String::from_utf8(ended.stdout).unwrap().contains("warning"));
    let (ended, _) = backtest(&[("rows.ndjson", plain(10))], &[]);
    assert!(!String::from_utf8(ended.stdout).unwrap().contains("warning"));
}

// Files that were cut off.

#[test]
fn a_file_that_was_cut_off_is_read_as_far_as_it_is_whole() {
    let lines = slice(USDM);
    let zipped = fs::read(data(USDM)).unwrap();
    let gzipped = gzip(&lines.concat());
    for (name, bytes) in [("cut.log.zst", &zipped), ("cut.log.gz", &gzipped)] {
        for keep in [bytes.len() / 2, bytes.len() - 1] {
            let files = Files::new();
            let path = files.add(name, &bytes[..keep]);
            let refused = finish(
                {
                    let mut c = foreshock();
                    c.arg("backtest").arg(&path);
                    c
                },
                None,
            );
            assert_eq!(refused.status, Some(1));
            check_said(&refused.stderr, &[name, "to its end: ", "--take-whole"]);
            let mut command = foreshock();
            command.args(["backtest", "--take-whole", "--out"]).arg(files.path().join("out")).arg(&path);
            let ended = finish(command, None);
            assert_eq!(ended.status, Some(0), "{}", ended.stderr);
            check_said(&ended.stderr, &[name, "is not whole", "lines were read"]);
            let printed = String::from_utf8(ended.stdout).unwrap();
            check_said(&printed, &["files       ", name, "lines were read"]);
            // All that is whole, to the byte.
            let read: usize = printed
                .split(" lines were read")
                .next()
                .unwrap()
                .rsplit(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!(read > lines.len() / 10 && read <= lines.len(), "{read} lines");
            let plain = files.add(&format!("plain/{name}"), lines[..read].concat());
            let mut command = foreshock();
            command.args(["backtest", "--out"]).arg(files.path().join("plain-out")).arg(plain);
            assert_eq!(finish(command, None).status, Some(0));
            assert_same_files(&files.path().join("out"), &files.path().join("plain-out"));
        }
    }
}

#[track_caller]
fn assert_same_files(one: &Path, other: &Path) {
    let names = |folder: &Path| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(one), names(other));
    assert!(!names(one).is_empty());
    for name in names(one) {
        assert!(fs::read(one.join(&name)).unwrap() == fs::read(other.join(&name)).unwrap(), "{name} differs");
    }
}

#[test]
fn the_last_line_of_a_file_that_was_cut_off() {
    let text = plain(5);
    let whole = &text[..text.len() - 1];
    let cut = &text[..text.len() - 20];
    let half_number: Vec<u8> = [&text[..], b"1723161253937085768 {\"e\":"].concat();
    for (name, bytes) in [("cut.ndjson", cut.to_vec()), ("cut.ndjson.gz", gzip(cut))] {
        let ended = check_ticks(&[(name, bytes.clone())], &["--take-whole"], 4);
        check_said(
            &ended.stderr,
            &[name, "ends in the middle of its line 5", "line 5 is left out", "4 lines were read"],
        );
        // As ever without.
        let (ended, _) = backtest(&[(name, bytes)], &[]);
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        check_said(&String::from_utf8(ended.stdout).unwrap(), &["refused     1 broken_json"]);
    }
    check_ticks(&[("half-a-prefix", half_number)], &["--take-whole"], 5);
    let ended = check_ticks(&[("whole", whole.to_vec())], &["--take-whole"], 5);
    assert!(!ended.stderr.contains("left out"), "{}", ended.stderr);
    check_refused(
        &[("one-line", cut[..60].to_vec())],
        &["--take-whole"],
        &["one-line\"", "no message to read"],
    );
    // Other files are read whole; two that are cut are both told of.
    let ended =
        check_ticks(&[("a", cut.to_vec()), ("b", plain(5)), ("c", cut.to_vec())], &["--take-whole"], 13);
    check_said(&ended.stderr, &["/a\" ends in the middle", "/c\" ends in the middle"]);
}

/// Damage is no end, but what stands before it is whole.
#[test]
fn a_damaged_file_is_read_up_to_the_damage() {
    let mut bytes = fs::read(data(USDM)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0x5a);
    let (ended, _) = backtest(&[("damaged.zst", bytes.clone())], &[]);
    check_said(&ended.stderr, &["it is damaged: --take-whole reads what is whole before that place"]);
    let (ended, _) = backtest(&[("damaged.zst", bytes)], &["--take-whole"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    check_said(&ended.stderr, &["is not whole", "lines were read"]);
}

// Files that are still being written.

/// A backtest that follows files, with its outputs in a folder.
fn following(files: &Files, paths: &[&Path], args: &[&str]) -> Running {
    let mut command = foreshock();
    command
        .args(["backtest", "--follow", "--json", "--out"])
        .arg(files.path().join("out"))
        .args(args)
        .args(paths);
    Running::start(command)
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Waits until features of as many rows are on disk.
#[track_caller]
fn await_rows(files: &Files, running: &mut Running, rows: usize) {
    let written = || -> usize {
        let entries = fs::read_dir(files.path().join("out")).into_iter().flatten().flatten();
        let features =
            entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("features"));
        features
            .and_then(|path| fs::read(path).ok())
            .map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count())
    };
    running.until(&format!("{rows} rows are written"), |_| written() >= rows);
}

#[track_caller]
fn check_followed(files: &Files, running: Running, signal: &str, whole: &Path) -> Ended {
    running.signal(signal);
    let ended = running.end();
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let mut command = foreshock();
    command.args(["backtest", "--out"]).arg(files.path().join("whole")).arg(whole);
    let plain = finish(command, None);
    assert_eq!(plain.status, Some(0), "{}", plain.stderr);
    assert_same_files(&files.path().join("out"), &files.path().join("whole"));
    ended
}

#[test]
fn a_file_that_grows_gives_what_it_gives_whole() {
    let lines = slice(USDM);
    for (signal, workers) in [("INT", "-w1"), ("TERM", "-w3")] {
        let files = Files::new();
        let path = files.add("feed.log", b"");
        let mut running = following(&files, &[&path], &[workers]);
        let all = lines.concat();
        // In pieces that end anywhere.
        append(&path, &all[..100]);
        append(&path, &all[100..200_000]);
        await_rows(&files, &mut running, 300);
        append(&path, &all[200_000..200_001]);
        append(&path, &all[200_001..900_000]);
        await_rows(&files, &mut running, 2_000);
        append(&path, &all[900_000..]);
        check_followed(&files, running, signal, &path);
    }
}

#[test]
fn a_compressed_file_that_grows() {
    let lines = slice(USDM);
    let files = Files::new();
    let (zst, plain) = (files.add("feed.log", b""), files.path().join("plain/feed.log"));
    let mut running = following(&files, &[&zst], &["-w2"]);
    let mut encoder = zstd::Encoder::new(OpenOptions::new().append(true).open(&zst).unwrap(), 1).unwrap();
    encoder.write_all(&lines[..2_000].concat()).unwrap();
    encoder.flush().unwrap();
    await_rows(&files, &mut running, 500);
    encoder.write_all(&lines[2_000..4_000].concat()).unwrap();
    encoder.flush().unwrap();
    await_rows(&files, &mut running, 2_000);
    // The frame has no end yet: what was flushed is whole.
    files.add("plain/feed.log", lines[..4_000].concat());
    let ended = check_followed(&files, running, "TERM", &plain);
    check_said(&ended.stderr, &["4000 lines were read"]);
    drop(encoder.finish());
}

#[test]
fn a_gzip_file_that_grows_by_members() {
    let lines = slice(USDM);
    let files = Files::new();
    let (gz, plain) = (files.add("feed.log", b""), files.add("plain/feed.log", lines[..4_000].concat()));
    let mut running = following(&files, &[&gz], &[]);
    append(&gz, &gzip(&lines[..2_000].concat()));
    await_rows(&files, &mut running, 500);
    append(&gz, &gzip(&lines[2_000..4_000].concat()));
    await_rows(&files, &mut running, 2_000);
    check_followed(&files, running, "TERM", &plain);
}

#[test]
fn a_followed_file_is_rotated_and_truncated() {
    let lines = slice(USDM);
    let part = |from: usize, to: usize| lines[from..to].concat();
    let is_tick = |line: &Vec<u8>| String::from_utf8_lossy(line).contains("@bookTicker");
    // Up to a tick: its row tells that all of it was read.
    let cut = (0..4_000).rev().find(|at| is_tick(&lines[*at])).unwrap() + 1;
    let ticks = lines[..cut].iter().filter(|line| is_tick(line)).count();
    let files = Files::new();
    let path = files.add("feed.log", part(0, 2_000));
    let mut running = following(&files, &[&path], &["-w2"]);
    await_rows(&files, &mut running, 1_000);
    // As logrotate does by default: renamed, and begun anew; something comes to the old one still.
    fs::rename(&path, files.path().join("feed.log.1")).unwrap();
    append(&files.path().join("feed.log.1"), &part(2_000, 2_500));
    files.add("feed.log", part(2_500, cut));
    running.until_logged("was replaced by another file while it was followed");
    await_rows(&files, &mut running, ticks);
    // As with `copytruncate`.
    fs::write(&path, b"").unwrap();
    running.until_logged("was truncated while it was followed");
    append(&path, &part(cut, lines.len()));
    let whole = files.add("whole-feed/feed.log", lines.concat());
    check_followed(&files, running, "TERM", &whole);
}

#[test]
fn several_files_are_followed_in_one_order() {
    let (usdm, spot) = (slice(USDM), slice("btcusdt-spot.log.zst"));
    let files = Files::new();
    let (one, two) = (files.add("usdm.log", b""), files.add("spot.log", b""));
    let mut running = following(&files, &[&one, &two], &["-w2"]);
    append(&one, &usdm[..3_000].concat());
    append(&two, &spot[..700].concat());
    await_rows(&files, &mut running, 500);
    append(&two, &spot[700..].concat());
    append(&one, &usdm[3_000..].concat());
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let mut command = foreshock();
    command.args(["backtest", "--out"]).arg(files.path().join("whole")).args([&one, &two]);
    assert_eq!(finish(command, None).status, Some(0));
    assert_same_files(&files.path().join("out"), &files.path().join("whole"));
}

#[test]
fn the_end_of_a_followed_file() {
    // A line that is being written is left out, and told of; an array needs no end.
    for (name, text, ticks) in [
        ("line", [&plain(3)[..], b"{\"type\":\"quo"].concat(), 3),
        ("whole-line", plain(3)[..plain(3).len() - 1].to_vec(), 3),
        ("array", format!("[{},\n{},\n{}", quote(0), quote(1), &quote(2)[..20]).into_bytes(), 2),
    ] {
        let files = Files::new();
        let path = files.add(name, &text);
        let mut running = following(&files, &[&path], &[]);
        await_rows(&files, &mut running, 2);
        running.signal("TERM");
        let ended = running.end();
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        let summary: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(summary["rows"]["ticks"], ticks, "{name}: {summary}");
        assert_eq!(summary["messages"]["deadlettered"], 0, "{name}: {summary}");
    }
    // Nothing ever came.
    let files = Files::new();
    let path = files.add("empty", b"");
    let running = following(&files, &[&path], &[]);
    await_that("signals are caught", || caught(running.id()));
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    check_said(&ended.stderr, &["empty\" is empty: there is no message to read"]);
}

#[test]
fn what_cannot_be_followed_is_told_at_once() {
    #[track_caller]
    fn check(path: &Path, expected: &str) {
        for command in ["backtest", "replay"] {
            let mut asked = foreshock();
            asked.arg(command).arg("--follow").arg(path);
            if command == "replay" {
                asked.args(["--brokers", "127.0.0.1:1"]);
            }
            let ended = finish(asked, Some(Vec::new()));
            assert_eq!(ended.status, Some(2), "{}", ended.stderr);
            assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        }
    }
    let files = Files::new();
    check(Path::new("-"), "--follow takes files");
    let archive = files.add("a.zip", zip(&[("a", &plain(1))], zip::CompressionMethod::Stored));
    check(&archive, "is a zip archive, which is written at once");
    check(Path::new("/dev/null"), "is no regular file");
    let mut looped = foreshock();
    looped.args(["replay", "--follow", "--loop", "x"]);
    assert_eq!(finish(looped, None).status, Some(2));
}

/// Whether a process catches SIGINT and SIGTERM.
fn caught(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let Some(caught) = status.lines().find_map(|line| line.strip_prefix("SigCgt:")) else { return false };
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    caught & (1 << 1) != 0 && caught & (1 << 14) != 0
}
