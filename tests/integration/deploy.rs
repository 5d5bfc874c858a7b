//! The deployment files, without a platform: `compose.yaml` and `render.yaml` fit their schemas, the configuration reads every
//! variable that they and the manuals name, and the manuals in both languages have the same structure.
//!
//! Builds no image, and deploys nothing.

use std::{collections::BTreeSet, fs, path::Path};

use permcached::config::{DEFAULT_PORT, variable::all};
use serde_json::Value;

/// Words in capitals in the manuals that are not variables of permcached.
const OTHERS: [(&str, &str); 5] = [
    ("DEADLINE_EXCEEDED", "a status"),
    ("INVALID_ARGUMENT", "a status"),
    ("PERMISSION_DENIED", "a status"),
    ("PERMCACHED_HOST", "the backend's own"),
    ("PERMCACHED_TOKEN", "the backend's own"),
];

/// The manuals, in English and in French.
const MANUALS: [&str; 2] = ["docs/render.md", "docs/render.fr.md"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The objects of the manifest.
fn manifest() -> Vec<Value> {
    serde_saphyr::from_multiple(&read("deploy/kubernetes.yaml")).unwrap()
}

/// The errors of a document by a schema.
fn errors(document: &Value, schema: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&read(schema)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The text under a key of each object in a list.
fn texts(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|object| object[key].as_str().unwrap().to_owned()).collect()
}

/// Whether the configuration reads a variable.
fn is_read(name: &str) -> bool {
    all().any(|variable| variable.name == name)
}

#[test]
fn compose_yaml_fits_the_compose_specification() {
    let compose = yaml("compose.yaml");
    assert_eq!(errors(&compose, "deploy/schemas/compose-spec.json"), Vec::<String>::new());
    let mut broken = compose;
    broken["services"]["permcached"]["unheard_of"] = Value::from(true);
    assert_ne!(
        errors(&broken, "deploy/schemas/compose-spec.json"),
        Vec::<String>::new(),
        "the schema does not reject it"
    );
}

#[test]
fn render_yaml_fits_the_schema_of_render() {
    let blueprint = yaml("render.yaml");
    assert_eq!(errors(&blueprint, "deploy/schemas/render.json"), Vec::<String>::new());
    for (field, wrong) in [("maxShutdownDelaySeconds", Value::from(301)), ("healthCheckInterval", Value::from(10))] {
        let mut broken = blueprint.clone();
        broken["services"][0][field] = wrong;
        assert_ne!(errors(&broken, "deploy/schemas/render.json"), Vec::<String>::new(), "{field} is not rejected");
    }
    // All services are in one region: the private network does not leave it.
    let regions: BTreeSet<String> = texts(&blueprint["services"], "region").into_iter().collect();
    assert_eq!(regions.len(), 1, "{regions:?}");
}

#[test]
fn every_variable_of_the_files_is_read() {
    let mut named: Vec<(&str, String)> = Vec::new();
    let environment = yaml("compose.yaml")["services"]["permcached"]["environment"].clone();
    named.extend(environment.as_object().unwrap().keys().map(|name| ("compose.yaml", name.clone())));
    named.extend(
        texts(&yaml("render.yaml")["services"][0]["envVars"], "key").into_iter().map(|name| ("render.yaml", name)),
    );
    for object in manifest().iter().filter(|object| object["kind"] == "Deployment") {
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        named.extend(texts(&container["env"], "name").into_iter().map(|name| ("deploy/kubernetes.yaml", name)));
    }
    let image = read("Dockerfile");
    let (_, runtime) = image.rsplit_once("\nFROM ").unwrap();
    let variables = runtime.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('='));
    named.extend(variables.map(|(name, _)| ("Dockerfile", name.to_owned())));
    assert!(named.len() > 20, "{named:?}");
    for (file, name) in &named {
        assert!(is_read(name), "{file} sets {name}, which nothing reads");
    }
}

#[test]
fn every_variable_of_the_manuals_is_read() {
    for manual in MANUALS.into_iter().chain(["README.md", "docs/redis.md"]) {
        let text = read(manual);
        let words =
            text.split(|letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'));
        for word in words.filter(|word| word.trim_matches('_').contains('_')) {
            let is_other = OTHERS.iter().any(|(other, _)| *other == word);
            assert!(is_other || is_read(word), "{manual} names {word}, which nothing reads");
        }
    }
}

#[test]
fn the_port_is_the_same_everywhere() {
    let port = DEFAULT_PORT.to_string();
    assert!(read("Dockerfile").contains(&format!("\nEXPOSE {port}\n")));
    assert_eq!(yaml("compose.yaml")["services"]["permcached"]["environment"]["PORT"], Value::from(port.as_str()));
    let variables = yaml("render.yaml")["services"][0]["envVars"].clone();
    let set = variables.as_array().unwrap().iter().find(|variable| variable["key"] == "PORT").unwrap();
    assert_eq!(set["value"], Value::from(port.as_str()));
    let service = manifest().into_iter().find(|object| object["kind"] == "Service").unwrap();
    assert_eq!(service["spec"]["ports"][0]["port"], Value::from(DEFAULT_PORT));
}

#[test]
fn the_manuals_quote_the_log_and_keep_up_with_each_other() {
    let app = ["src/app/open.rs", "src/app/reports.rs"].map(read).concat();
    let lines = [
        "✅ Redis cache connected",
        "ℹ️  Redis not configured (REDIS_URL not set), using memory cache",
        "Redis unavailable, using memory cache",
        "connected to a replica set: changes arrive through a change stream",
    ];
    let shape = |text: &str| {
        let starting = |with: &str| text.lines().filter(|line| line.starts_with(with)).count();
        ["#", "|", "```", "- "].map(starting)
    };
    let [english, french] = MANUALS.map(read);
    for line in lines {
        assert!(app.contains(line), "nothing logs {line}");
        for (manual, text) in MANUALS.iter().zip([&english, &french]) {
            assert!(text.contains(line), "{manual} does not quote {line}");
        }
    }
    assert_eq!(shape(&english), shape(&french), "headings, rows, fences and items of {MANUALS:?}");
}

/// The memory of the plans of Render.
const PLANS: [(&str, u64); 2] = [("starter", 512_000_000), ("standard", 2_000_000_000)];

/// A number of bytes with a unit, as manifests have it.
fn bytes(text: &str) -> u64 {
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "" => 1,
        "M" => 1_000_000,
        "Mi" => 1 << 20,
        "G" => 1_000_000_000,
        "Gi" => 1 << 30,
        other => panic!("the unit {other}"),
    };
    number.parse::<u64>().unwrap() * factor
}

/// The value of a variable in a list of objects, or else its default.
fn cache_bytes(list: &[Value], name: &str) -> u64 {
    let set = list.iter().find(|variable| variable[name] == "CACHE_MAX_BYTES");
    let default = || all().find(|variable| variable.name == "CACHE_MAX_BYTES").unwrap().default.unwrap();
    set.map_or_else(default, |variable| variable["value"].as_str().unwrap()).parse().unwrap()
}

/// docs/operations.md, "Memory": 1.3 times the cache and 64 MB.
#[test]
fn each_memory_limit_exceeds_what_the_configuration_allows() {
    let compose = yaml("compose.yaml")["services"]["permcached"].clone();
    let blueprint = yaml("render.yaml")["services"][0].clone();
    let deployment = manifest().into_iter().find(|object| object["kind"] == "Deployment").unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let limit = |value: &Value| bytes(value.as_str().unwrap());
    let in_compose =
        compose["environment"].get("CACHE_MAX_BYTES").map(|bytes| bytes.as_str().unwrap().parse().unwrap());
    let plan = PLANS.iter().find(|(name, _)| blueprint["plan"] == *name).unwrap();
    for (file, cache, limit) in [
        (
            "compose.yaml",
            in_compose.unwrap_or_else(|| cache_bytes(&[], "name")),
            limit(&compose["deploy"]["resources"]["limits"]["memory"]),
        ),
        ("render.yaml", cache_bytes(blueprint["envVars"].as_array().unwrap(), "key"), plan.1),
        (
            "deploy/kubernetes.yaml",
            cache_bytes(container["env"].as_array().unwrap(), "name"),
            limit(&container["resources"]["limits"]["memory"]),
        ),
    ] {
        let required = cache * 13 / 10 + 64_000_000;
        assert!(required <= limit, "{file}: {cache} bytes of cache require {required}, and the limit is {limit}");
    }
}

/// Whether a reference to an image ends with a digest.
fn has_digest(image: &str) -> bool {
    let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
    digest.is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The images that a Dockerfile begins with, with its arguments filled in. A stage that begins with an earlier one has none.
fn base_images(path: &str) -> Vec<String> {
    let text = read(path);
    let arguments = text.lines().filter_map(|line| line.strip_prefix("ARG ")?.split_once('='));
    let filled = arguments.fold(text.clone(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    let stages = filled.lines().filter_map(|line| line.strip_prefix("FROM "));
    stages.map(|stage| stage.split(' ').next().unwrap().to_owned()).collect()
}

/// A tag can be moved to another image, a digest cannot.
#[test]
fn every_image_that_others_have_built_has_a_digest() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().unwrap();
    let in_compose = services.values().filter(|service| service.get("build").is_none());
    let in_compose =
        in_compose.filter_map(|service| service["image"].as_str()).map(|image| ("compose.yaml", image.to_owned()));
    let in_files = ["Dockerfile", "load/Dockerfile"]
        .into_iter()
        .flat_map(|file| base_images(file).into_iter().map(move |image| (file, image)));
    let images: Vec<_> = in_compose.filter(|(_, image)| image != "permcached:local").chain(in_files).collect();
    assert!(images.len() >= 9, "{images:?}");
    for (file, image) in images {
        assert!(has_digest(&image), "{file}: {image}");
    }
}

#[test]
fn the_network_policy_lets_in_labelled_callers_and_monitoring_only() {
    let objects = manifest();
    let policy = objects.iter().find(|object| object["kind"] == "NetworkPolicy").unwrap();
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], deployment["spec"]["selector"]["matchLabels"]);
    assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
    let entries = |direction: &str| policy["spec"][direction].as_array().unwrap().clone();
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    for entry in entries("ingress") {
        assert!(!empty(&entry["from"]) && !empty(&entry["ports"]), "it lets in everybody: {entry}");
        for from in entry["from"].as_array().unwrap() {
            let selectors = ["podSelector", "namespaceSelector"].map(|key| from[key]["matchLabels"].is_object());
            assert!(selectors.contains(&true), "it selects everybody: {from}");
        }
    }
    for entry in entries("egress") {
        assert!(!empty(&entry["ports"]), "it lets out to every port: {entry}");
    }
}
