"""Checks what no schema knows: that the parts of docker/ fit each other, the code, and the runbook.

Writes the dashboard's expressions as a rules file, for promtool to parse.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
METRICS = "docs/metrics.md"
# Given to every series by Prometheus, or by what makes series.
FREE_LABELS = {"job", "instance", "le", "__name__"}
# Prometheus's own.
OWN = {"up", "ALERTS"}
WORDS = {
    "and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "inf",
    "nan", "start", "end",
}

problems = []


def problem(where, what):
    problems.append(f"{where}: {what}")


def expect(true, where, what):
    if not true:
        problem(where, what)


def load(path):
    return yaml.safe_load((ROOT / path).read_text())


# --- what the code declares ---


def declared_metrics():
    """Names in docs/metrics.md with their labels: a test holds that table to the program."""
    document = (ROOT / METRICS).read_text()
    table = document.split("<!-- metrics -->")[1].split("<!-- end of metrics -->")[0]
    found = {}
    for row in table.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if len(cells) > 3 and cells[0].startswith("`"):
            found[cells[0].strip("`")] = {label.strip() for label in cells[2].split(",") if label.strip()}
    return found


def declared_keys():
    def walk(node, path):
        if isinstance(node, dict) and node:
            for name, below in node.items():
                yield from walk(below, [*path, name])
        else:
            yield "FORESHOCK_" + "__".join(path).upper().replace("-", "_")

    return set(walk(load("config/foreshock.yaml"), []))


# --- expressions ---


def names_in(expression):
    """The metrics and the labels that an expression names."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    labels = set()
    for matchers in re.findall(r"\{([^}]*)\}", plain):
        labels |= set(re.findall(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)", matchers))
    clause = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"
    for listed in re.findall(clause, plain):
        labels |= {name.strip() for name in listed.split(",") if name.strip()}
    plain = re.sub(clause, " ", plain)
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", plain)
    words = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\w|\s*\()", plain)
    return {word for word in words if word.lower() not in WORDS}, labels


def base(name, metrics):
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix) and name.removesuffix(suffix) in metrics:
            return name.removesuffix(suffix)
    return name


def check_expression(where, expression, metrics, recorded):
    names, labels = names_in(expression)
    expect(names, where, f"names no metric: {expression}")
    known_labels = set(FREE_LABELS)
    for name in names:
        if name in recorded:
            expect(":" in name, where, f"{name} should have a colon in its name")
            continue
        metric = base(name, metrics)
        expect(metric in metrics or name in OWN, where, f"{name} stands nowhere in {METRICS}")
        known_labels |= metrics.get(metric, set())
    for label in labels - known_labels:
        problem(where, f"no metric of it has the label {label}: {expression}")
    for function, name in re.findall(r"\b(rate|irate|increase|deriv|delta)\(\s*([a-zA-Z_:][\w:]*)", expression):
        counts = re.search(r"_(total|bucket|sum|count)\Z", name) is not None
        expect(counts == (function in ("rate", "irate", "increase")), where, f"{function}() of {name}")


# --- the parts ---


def check_rules(metrics):
    groups = load("docker/prometheus/alerts.yml")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    used = set()
    tests = (DOCKER / "prometheus/alerts_test.yml").read_text()
    runbook = (ROOT / "docs/operations.md").read_text()
    headings = set(re.findall(r"^#+ (.+)$", runbook, re.M))
    alerts = set()
    for rule in rules:
        where = rule.get("alert") or rule["record"]
        check_expression(where, rule["expr"], metrics, recorded)
        used |= names_in(rule["expr"])[0]
        if "alert" not in rule:
            continue
        alerts.add(where)
        expect(rule.get("labels", {}).get("severity") in ("critical", "warning", "info"), where, "has no severity")
        notes = rule.get("annotations", {})
        for note in ("summary", "description"):
            expect(notes.get(note), where, f"has no {note}")
        expect(notes.get("runbook") == f"docs/operations.md#{where.lower()}", where, "does not name its runbook")
        expect(where in headings, where, "has no section in docs/operations.md")
        fires = re.search(rf'alertname="{where}"', tests) or re.search(
            rf"alertname: {where}\n\s+eval_time: \S+\n\s+exp_alerts:\n\s+- ", tests)
        expect(fires, where, "never fires in alerts_test.yml")
    for heading in headings:
        if re.fullmatch(r"Foreshock[A-Z]\w+", heading):
            expect(heading in alerts, "docs/operations.md", f"tells of {heading}, which is no alert")
    expect(len(alerts) == sum("alert" in rule for rule in rules), "alerts.yml", "a name stands twice")
    print(f"{len(alerts)} alerts: each has a severity, a section in the runbook and a test in which it fires")
    return recorded


def check_dashboard(path, metrics, recorded, sources):
    board = json.loads(path.read_text())
    where = path.name
    expect(board["schemaVersion"] >= 42, where, "has an old schemaVersion")
    expect(board.get("uid") and board.get("title"), where, "has no uid or title")
    expect("id" not in board, where, "has an id, which is another in every Grafana")
    expressions = []
    taken = {}
    seen = set()
    for panel in board["panels"]:
        name = f'{where}: {panel["title"]}'
        expect(panel["id"] not in seen, name, f'the id {panel["id"]} stands twice')
        seen.add(panel["id"])
        place = panel["gridPos"]
        expect(place["x"] + place["w"] <= 24, name, "is too wide")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                expect((x, y) not in taken, name, f"lies over {taken.get((x, y))}")
                taken[x, y] = panel["title"]
        if panel["type"] == "row":
            continue
        expect(panel.get("description"), name, "has no description")
        expect(panel["targets"], name, "asks nothing")
        refs = [target["refId"] for target in panel["targets"]]
        expect(len(refs) == len(set(refs)), name, "a refId stands twice")
        for target in panel["targets"]:
            expect(target["datasource"]["uid"] in sources, name, f'unknown data source {target["datasource"]}')
            expressions.append((name, target["expr"]))
    for note in board["annotations"]["list"]:
        if "expr" in note:
            expressions.append((f'{where}: {note["name"]}', note["expr"]))
    variables = {variable["name"] for variable in board["templating"]["list"]}
    for variable in board["templating"]["list"]:
        metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        expressions.append((f'{where}: ${variable["name"]}', f"count by ({label}) ({metric})"))
    given = {"__rate_interval": "1m", "__interval": "10s", "__range": "30m"}
    rules = []
    for name, expression in expressions:
        def fill(match, name=name):
            variable = match.group(1)
            expect(variable in given or variable in variables, name, f"unknown variable ${variable}")
            return given.get(variable, ".*")

        filled = re.sub(r"\$\{?(\w+)\}?", fill, expression)
        check_expression(name, filled, metrics, recorded)
        rules.append({"record": f"panel:{len(rules)}", "expr": filled})
    print(f"{where}: {len(seen)} panels with {len(rules)} expressions")
    return rules


def check_compose(keys):
    compose = load("docker/compose.yaml")
    services = compose["services"]
    config = load("config/foreshock.yaml")
    for name, service in services.items():
        where = f"compose.yaml: {name}"
        for port in service.get("ports", []):
            expect(str(port).startswith("127.0.0.1:"), where, f"{port} is open to others than this machine")
        expect(re.search(r":[\w.-]*\d|:local\Z", service["image"]), where, f'{service["image"]} is not pinned')
        for field in ("mem_limit", "restart", "healthcheck", "logging"):
            # The image of foreshock brings its own health check.
            expect(field in service or (field, name) == ("healthcheck", "foreshock"), where, f"has no {field}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                expect((DOCKER / source).exists(), where, f"{source} does not exist")
                expect(volume.endswith(":ro"), where, f"{source} can be written to")
            else:
                expect(source in compose["volumes"], where, f"{source} is no volume")
        for other in service.get("depends_on", {}):
            expect(other in services, where, f"depends on {other}")
        for variable in service.get("environment", {}):
            if variable.startswith("FORESHOCK_"):
                expect(variable in keys, where, f"{variable} is no key of the configuration")
        for word in service.get("command", []):
            if word.startswith("/data/"):
                expect((ROOT / "tests/data" / word.removeprefix("/data/")).exists(), where, f"no file for {word}")
    job = services["foreshock"]
    stored = re.search(r"^ENV FORESHOCK_STATE__STORE=(\S+)", (DOCKER / "Dockerfile").read_text(), re.M)
    kept = [volume.split(":")[1] for volume in job.get("volumes", [])]
    expect(stored and stored.group(1) in kept, "compose.yaml: foreshock", "has no volume where the image keeps snapshots")
    stop, grace = (int(text.removesuffix("s")) for text in (config["kafka"]["stop_timeout"], job["stop_grace_period"]))
    expect(grace > 2 * stop, "compose.yaml: foreshock", f"is killed after {grace} s, and may need twice {stop} s to stop")
    advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    brokers = job["environment"]["FORESHOCK_KAFKA__BROKERS"]
    expect(f"://{brokers}" in advertised, "compose.yaml", f"Kafka does not call itself {brokers}")
    scraped = {
        target
        for scrape in load("docker/prometheus/prometheus.yml")["scrape_configs"]
        for target in scrape["static_configs"][0]["targets"]
    }
    port = config["http"]["listen"].split(":")[1]
    expect(f"foreshock:{port}" in scraped, "prometheus.yml", f"does not scrape foreshock:{port}")
    mounts = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    for provider in load("docker/grafana/provisioning/dashboards/foreshock.yaml")["providers"]:
        expect(provider["options"]["path"] in mounts, "grafana", f'nothing is mounted at {provider["options"]["path"]}')
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    expect((DOCKER / "grafana/dashboards" / Path(home).name).exists(), "grafana", f"{home} does not exist")
    sources = load("docker/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    for source in sources:
        expect(source["url"].split("/")[2].split(":")[0] in services, "grafana", f'{source["url"]} is no service')
    print(f"{len(services)} services: ports on loopback only, pinned, bounded, mounts and addresses agree")
    return {source["uid"] for source in sources}


def check_image(keys):
    recipe = (DOCKER / "Dockerfile").read_text()
    for variable in re.findall(r"^ENV (\w+)=", recipe, re.M):
        expect(variable in keys, "Dockerfile", f"{variable} is no key of the configuration")
    rust = re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text()).group(1)
    expect(f"FROM rust:{rust}" in recipe, "Dockerfile", f"does not build with Rust {rust} of Cargo.toml")
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    expect(lines[0] == "*", ".dockerignore", "does not begin with leaving everything out")
    taken = [line.removeprefix("!") for line in lines[1:]]

    def is_sent(path):
        return any(path == entry or path.startswith(entry + "/") or fnmatch(path, entry) for entry in taken)

    for entry in taken:
        expect((ROOT / entry).exists(), ".dockerignore", f"{entry} does not exist")
    for source in re.findall(r"^COPY (?!--from)(\S+) ", recipe, re.M):
        expect(source == "." or is_sent(source), "Dockerfile", f"{source} is not sent to the build")
    for crate in ("src", "operators", "dataflows"):
        for file in (ROOT / crate).rglob("*.rs"):
            for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text()):
                path = (file.parent / name).resolve().relative_to(ROOT)
                # Only what tests include may stay behind, and those lie in tests/.
                expect(is_sent(str(path)) or path.parts[0] == "tests", str(file), f"includes {path}, which is not sent")
    if not shutil.which("cargo"):
        print("the build's context: not tried, there is no cargo")
        return
    with tempfile.TemporaryDirectory() as folder:
        for entry in taken:
            target = Path(folder) / entry
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / entry).is_dir() else shutil.copy
            copy(ROOT / entry, target)
        done = subprocess.run(["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"], cwd=folder,
                              capture_output=True, text=True)
        expect(done.returncode == 0, ".dockerignore", f"cargo misses something: {done.stderr.strip()}")
    print("the build's context has all that cargo and the sources name")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--expressions", type=Path, required=True)
    arguments = parser.parse_args()
    metrics, keys = declared_metrics(), declared_keys()
    expect(len(metrics) > 30, METRICS, f"only {len(metrics)} metrics were found: is it written otherwise now?")
    sources = check_compose(keys)
    check_image(keys)
    recorded = check_rules(metrics)
    rules = []
    for path in sorted((DOCKER / "grafana/dashboards").glob("*.json")):
        rules += check_dashboard(path, metrics, recorded, sources)
    names = [dict(rule, record=f"panel:{number}") for number, rule in enumerate(rules)]
    arguments.expressions.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": names}]}))
    if problems:
        sys.exit("\n".join(problems))


main()
