//! What is where, and what happens elsewhere.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::http::client::Asked;

/// All routes, as the server counts them.
fn routes(asked: &Asked) -> BTreeSet<String> {
    let stats = asked.get("/stats").ok();
    let endpoints = stats["endpoints"].as_array().unwrap().iter();
    let mut routes: BTreeSet<String> =
        endpoints.map(|endpoint| endpoint["endpoint"].as_str().unwrap().to_owned()).collect();
    assert!(routes.remove("unmatched"));
    routes
}

#[test]
fn the_root_lists_all_but_parts_of_pages() {
    let asked = Asked::start();
    let index = asked.get("/").ok();
    assert_eq!(index["name"], "foreshock");
    let listed: BTreeSet<String> = index["endpoints"].as_object().unwrap().keys().cloned().collect();
    let mut expected = routes(&asked);
    assert!(expected.remove("/docs/{file}"));
    assert_eq!(listed, expected);
    assert_eq!(listed.len(), 11);
}

#[test]
fn the_root_is_a_page_for_browsers() {
    let asked = Asked::start();
    let kind = |accept: &str| {
        let headers = format!("accept: {accept}\r\n");
        let answer = asked.connect().ask_with("GET", "/", &headers, b"");
        assert_eq!((answer.status, answer.header("vary")), (200, Some("accept")));
        answer.header("content-type").unwrap().to_owned()
    };
    let html = "text/html; charset=utf-8";
    assert_eq!(kind("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), html);
    assert_eq!(kind("TEXT/HTML"), html);
    assert_eq!(kind("text/*, application/json;q=0.5"), html);
    for accept in [
        "*/*",
        "application/json",
        "text/html;q=0.5, application/json",
        "text/plain",
        "text/html;q=0",
        "",
        "\u{e9}",
    ] {
        assert_eq!(kind(accept), "application/json", "{accept}");
    }
}

#[test]
fn every_route_answers_get_and_head_alike() {
    let asked = Asked::start();
    let mut connection = asked.connect();
    for path in routes(&asked) {
        let path = path.replace("{file}", "swagger-ui.css");
        let (get, head) = (connection.ask("GET", &path, b""), connection.ask("HEAD", &path, b""));
        let expected = if path == "/predict" { 405 } else { 200 };
        assert_eq!((get.status, head.status), (expected, expected), "{path}");
        assert!(!get.body.is_empty(), "{path}");
        for name in ["content-type", "allow", "x-content-type-options"] {
            assert_eq!(get.header(name), head.header(name), "{path}: {name}");
        }
        assert_eq!(get.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(get.header("access-control-allow-origin"), None, "{path}");
        assert!(head.header("content-length").is_some(), "{path}");
    }
}

#[test]
fn other_paths_are_not_there() {
    let asked = Asked::start();
    let mut connection = asked.connect();
    for path in
        ["/nothing", "/health/", "/docs/", "/docs/none.js", "/docs/../health", "//", "/%ff", "/predict/1"]
    {
        for method in ["GET", "POST", "PUT"] {
            let answer = connection.ask(method, path, b"");
            match (path, method) {
                ("/docs/none.js", "POST" | "PUT") => answer.error(405),
                _ => answer.error(404),
            };
        }
    }
    assert_eq!(
        connection.ask("GET", "/nothing", b"").error(404).0,
        "there is nothing at /nothing; / lists what is where"
    );
}

#[test]
fn other_methods_do_not_work() {
    let asked = Asked::start();
    let mut connection = asked.connect();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let answer = connection.ask(method, "/predict", b"");
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
        assert_eq!(answer.error(405).0, format!("{method} does not work at /predict"));
    }
    let answer = connection.ask("POST", "/health", b"{}");
    assert_eq!((answer.header("allow"), answer.status), (Some("GET,HEAD"), 405));
}

#[test]
fn the_description_lists_exactly_the_routes() {
    let asked = Asked::start();
    let description = asked.get("/openapi.json").ok();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = description["paths"].as_object().unwrap();
    assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), routes(&asked));
    for (path, methods) in paths {
        let method = if path == "/predict" { "post" } else { "get" };
        assert_eq!(methods.as_object().unwrap().keys().collect::<Vec<_>>(), [method], "{path}");
        let responses = methods[method]["responses"].as_object().unwrap();
        assert!(responses["200"]["content"].is_object(), "{path}");
    }
    let statuses: Vec<&String> = paths["/predict"]["post"]["responses"].as_object().unwrap().keys().collect();
    assert_eq!(statuses, ["200", "400", "408", "413", "503"]);
}

/// What is named with `$ref` anywhere in a description.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                found.insert(target.clone());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_description_describes_all_it_names() {
    let description = Asked::start().get("/openapi.json").ok();
    let mut named = BTreeSet::new();
    references(&description, &mut named);
    assert!(named.len() > 5, "{named:?}");
    for target in named {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(description.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn the_page_works_without_a_network() {
    let asked = Asked::start();
    let page = asked.get("/docs");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'self';"));
    let mut files = Vec::new();
    for quoted in page.text().split(['"']).skip(1).step_by(2).filter(|quoted| quoted.contains('/')) {
        if quoted != "image/png" {
            files.push(quoted.to_owned());
        }
    }
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert!(file.starts_with("/docs/"), "{file}");
        assert_eq!(asked.get(&file).status, 200, "{file}");
    }
    let start = asked.get("/docs/start.js");
    assert!(start.text().contains("url: \"/openapi.json\"") && start.text().contains("validatorUrl: null"));
    for text in [page.text(), start.text()] {
        assert!(!text.contains("//"), "{text}");
    }
    let style = asked.get("/docs/swagger-ui.css");
    for url in style.text().split("url(").skip(1) {
        assert!(url.trim_start_matches(['"', '\'']).starts_with("data:"), "{}", &url[..60]);
    }
    assert!(!style.text().contains("@import"));
}
