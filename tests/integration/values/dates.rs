//! Dates as numbers and as text.

use mongodb::bson::{Bson, DateTime};

use super::{ALLOWED, MALFORMED, NO_GRANT, NOW, assert_answers, doc, oid};

const EXPIRED: &str = "denied EXPIRED";

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]

[resource.file]
collection = "files"

[resource.file.relations]
seconds = { field = "user", since = { field = "from_s", unit = "seconds" }, until = { field = "to.s", unit = "seconds" } }
millis  = { field = "user", until = { field = "ms", unit = "milliseconds" } }
text    = { each = "guests", field = "user", until = { field = "text", unit = "iso8601" } }
strict  = { field = "user", until = { field = "ms", unit = "milliseconds" }, required = true }

[resource.file.permissions]
in_seconds = "seconds"
in_millis = "millis"
in_text = "text"
in_strict = "strict"
unless  = "millis & !text"
"#;

#[tokio::test]
async fn dates_are_read_in_their_unit() {
    let (now_s, decimal) = (NOW / 1_000, |text: String| Bson::Decimal128(text.parse().unwrap()));
    let seconds = f64::from(i32::try_from(now_s).unwrap());
    assert_eq!(NOW % 1_000, 0, "the time of the tests is a whole second");
    let text = |offset: i64| DateTime::from_millis(NOW + offset).try_to_rfc3339_string().unwrap();
    let mut files = Vec::new();
    let mut asked: Vec<(&str, &str, &str, &str)> = Vec::new();
    let mut add = |permission, fields, expected| {
        let number = 10 + u32::try_from(files.len()).unwrap();
        let mut file = doc! { "_id": oid(number), "user": oid(2) };
        file.extend(fields);
        files.push(file);
        asked.push(("user:@2", permission, format!("file:@{number}").leak(), expected));
    };
    for (value, expected) in [
        (Bson::Int64(now_s + 1), ALLOWED),
        (Bson::Int64(now_s), EXPIRED),
        (Bson::Int32(i32::try_from(now_s).unwrap() - 1), EXPIRED),
        (Bson::Double(seconds + 0.5), ALLOWED),
        (Bson::Double(seconds - 0.5), EXPIRED),
        (decimal(format!("{now_s}.25")), ALLOWED),
        (decimal(format!("{now_s}E3")), MALFORMED),
        (Bson::Int64(NOW + 1_000), MALFORMED),
        (Bson::Double(f64::INFINITY), MALFORMED),
        (Bson::Double(f64::NAN), MALFORMED),
        (decimal("NaN".to_owned()), MALFORMED),
        (Bson::Int64(i64::MAX), MALFORMED),
        ((now_s + 1).to_string().into(), MALFORMED),
        (DateTime::from_millis(NOW + 1_000).into(), MALFORMED),
        (vec![Bson::Int64(now_s + 1)].into(), MALFORMED),
        (true.into(), MALFORMED),
        (Bson::Null, ALLOWED),
    ] {
        add("in_seconds", doc! { "to": { "s": value } }, expected);
    }
    add("in_seconds", doc! { "from_s": now_s }, ALLOWED);
    add("in_seconds", doc! { "from_s": seconds + 0.0001 }, EXPIRED);
    add("in_seconds", doc! { "from_s": "now" }, MALFORMED);
    add("in_seconds", doc! { "to": now_s }, MALFORMED);
    for (value, expected) in [
        (Bson::Int64(NOW + 1), ALLOWED),
        (Bson::Int64(NOW), EXPIRED),
        (Bson::Double(seconds * 1_000.0 + 0.5), ALLOWED),
        (Bson::Int64(now_s), EXPIRED),
        (Bson::Double(1e300), MALFORMED),
        (text(1_000).into(), MALFORMED),
        (Bson::Null, ALLOWED),
    ] {
        add("in_millis", doc! { "ms": value }, expected);
    }
    add("in_strict", doc! { "ms": null }, MALFORMED);
    add("in_strict", doc! { "ms": NOW + 1 }, ALLOWED);
    for (value, expected, unless) in [
        (Bson::String(text(1_000)), ALLOWED, "denied EXCLUDED"),
        (text(0).into(), EXPIRED, ALLOWED),
        (text(1_000).replace('Z', "+00:00").into(), ALLOWED, "denied EXCLUDED"),
        (text(1_000).replace('Z', "+02:00").into(), EXPIRED, ALLOWED),
        (text(1_000).replace('Z', "").into(), MALFORMED, MALFORMED),
        ("2999-01-01".into(), MALFORMED, MALFORMED),
        ("never".into(), MALFORMED, MALFORMED),
        ("".into(), MALFORMED, MALFORMED),
        (Bson::Int64(NOW + 1), MALFORMED, MALFORMED),
        (DateTime::from_millis(NOW + 1_000).into(), MALFORMED, MALFORMED),
    ] {
        let fields = doc! { "guests": [{ "user": oid(2), "text": value }] };
        add("in_text", fields.clone(), expected);
        add("unless", fields, unless);
    }
    add("in_text", doc! { "guests": [{ "user": oid(3), "text": "never" }] }, NO_GRANT);
    assert_answers(SCHEMA, &[("files", files)], &asked).await;
}
