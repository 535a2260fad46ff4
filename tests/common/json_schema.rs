//! A small validator of JSON Schema (draft 2020-12), written from the specification and apart from the
//! crate's own reading of schemas; it knows only the keywords that the random schemas have.

use serde_json::{Map, Value};

/// What is wrong with `value`, if anything. `root` is what references are into.
pub fn fault(schema: &Value, value: &Value, root: &Value) -> Option<String> {
    let schema = match schema {
        Value::Bool(true) => return None,
        Value::Bool(false) => return Some(format!("{value} where nothing is allowed")),
        Value::Object(schema) => schema,
        other => panic!("{other} is no schema"),
    };
    schema.iter().find_map(|(keyword, argument)| {
        let wrong = keyword_fault(keyword, argument, schema, value, root);
        wrong.map(|why| format!("{keyword}: {why}"))
    })
}

fn keyword_fault(
    keyword: &str,
    argument: &Value,
    schema: &Map<String, Value>,
    value: &Value,
    root: &Value,
) -> Option<String> {
    let unless = |holds: bool| (!holds).then(|| format!("{value} against {argument}"));
    let schemas = || argument.as_array().expect("schemas").iter();
    let holds = |schema: &Value| fault(schema, value, root).is_none();
    let bound = argument.as_f64().unwrap_or(f64::NAN);
    match keyword {
        "$defs" => None,
        "$ref" => {
            let pointer = argument.as_str().expect("a text").strip_prefix('#').expect("a local reference");
            fault(root.pointer(pointer).expect("a place"), value, root)
        }
        "type" => match argument {
            Value::Array(names) => unless(names.iter().any(|name| is_type(value, name))),
            name => unless(is_type(value, name)),
        },
        "const" => unless(same(argument, value)),
        "enum" => unless(schemas().any(|one| same(one, value))),
        "anyOf" => unless(schemas().any(holds)),
        "oneOf" => unless(schemas().filter(|schema| holds(schema)).count() == 1),
        "allOf" => schemas().find_map(|schema| fault(schema, value, root)),
        "minimum" => unless(value.as_f64().is_none_or(|v| v >= bound)),
        "maximum" => unless(value.as_f64().is_none_or(|v| v <= bound)),
        "exclusiveMinimum" => unless(value.as_f64().is_none_or(|v| v > bound)),
        "exclusiveMaximum" => unless(value.as_f64().is_none_or(|v| v < bound)),
        "minLength" => unless(value.as_str().is_none_or(|text| text.chars().count() as f64 >= bound)),
        "maxLength" => unless(value.as_str().is_none_or(|text| text.chars().count() as f64 <= bound)),
        "format" => unless(value.as_str().is_none_or(|text| has_format(text, argument.as_str().unwrap()))),
        "pattern" => unless(value.as_str().is_none_or(|text| has_pattern(text, argument.as_str().unwrap()))),
        "minItems" => unless(value.as_array().is_none_or(|list| list.len() as f64 >= bound)),
        "maxItems" => unless(value.as_array().is_none_or(|list| list.len() as f64 <= bound)),
        "prefixItems" => {
            let items = value.as_array()?.iter();
            schemas().zip(items).find_map(|(schema, item)| fault(schema, item, root))
        }
        "items" => {
            let n_prefix = schema.get("prefixItems").map_or(0, |list| list.as_array().unwrap().len());
            value.as_array()?.iter().skip(n_prefix).find_map(|item| fault(argument, item, root))
        }
        "required" => {
            let members = value.as_object()?;
            unless(schemas().all(|name| members.contains_key(name.as_str().unwrap())))
        }
        "properties" => {
            let known = |(name, value)| argument.get(name).and_then(|schema| fault(schema, value, root));
            value.as_object()?.iter().find_map(known)
        }
        "additionalProperties" => {
            let named = |name: &str| schema.get("properties").is_some_and(|p| p.get(name).is_some());
            let others = value.as_object()?.iter().filter(|(name, _)| !named(name));
            others.map(|(_, value)| fault(argument, value, root)).find_map(|fault| fault)
        }
        other => panic!("the validator does not know {other:?}"),
    }
}

fn is_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("a type's name") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|v| v.fract() == 0.0),
        other => panic!("no type is {other:?}"),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn number(text: &str, range: std::ops::RangeInclusive<u32>, n_digits: usize) -> bool {
    let digits = text.len() == n_digits && text.bytes().all(|b| b.is_ascii_digit());
    digits && text.parse().is_ok_and(|n| range.contains(&n))
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let (y, m) = (year.parse::<u32>().unwrap_or(0), month.parse::<usize>().unwrap_or(0));
    let leap = u32::from(y % 4 == 0 && (y % 100 != 0 || y % 400 == 0));
    let days = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    number(year, 0..=9999, 4) && number(month, 1..=12, 2) && number(day, 1..=days[m - 1], 2)
}

fn is_time(text: &str) -> bool {
    let Some(zone_at) = text.rfind(['Z', '+', '-']) else { return false };
    let (clock, zone) = text.split_at(zone_at);
    let hour_minute =
        |text: &str| text.split_once(':').is_some_and(|(h, m)| number(h, 0..=23, 2) && number(m, 0..=59, 2));
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let seconds = whole.rsplit_once(':').is_some_and(|(rest, s)| hour_minute(rest) && number(s, 0..=60, 2));
    let digits = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
    seconds && digits && (zone == "Z" || hour_minute(&zone[1..]))
}

fn has_format(text: &str, name: &str) -> bool {
    match name {
        "date" => is_date(text),
        "time" => is_time(text),
        "date-time" => text.split_once('T').is_some_and(|(date, time)| is_date(date) && is_time(time)),
        "uuid" => {
            let lengths: Vec<usize> = text.split('-').map(str::len).collect();
            lengths == [8, 4, 4, 4, 12] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
        }
        other => panic!("the validator does not know the format {other:?}"),
    }
}

/// The patterns of the random schemas, each with what it means.
pub const PATTERNS: [&str; 4] = ["^[a-z]{1,5}$", r"^\d{3}-\d{4}$", "^(yes|no|x\"y)$", r"^[^a-z\\]{2,4}$"];

fn has_pattern(text: &str, pattern: &str) -> bool {
    let n = text.chars().count();
    match PATTERNS.iter().position(|known| *known == pattern) {
        Some(0) => (1..=5).contains(&n) && text.bytes().all(|b| b.is_ascii_lowercase()),
        Some(1) => text.split_once('-').is_some_and(|(a, b)| number(a, 0..=999, 3) && number(b, 0..=9999, 4)),
        Some(2) => ["yes", "no", "x\"y"].contains(&text),
        Some(_) => (2..=4).contains(&n) && !text.bytes().any(|b| b.is_ascii_lowercase() || b == b'\\'),
        None => panic!("the validator does not know the pattern {pattern:?}"),
    }
}

/// That the validator refuses what it should.
#[test]
fn the_validator_finds_faults() {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (schema, good, bad) in [
        (r#"{"type":"integer"}"#, "1", "1.5"),
        (r#"{"type":["null","string"]}"#, "null", "1"),
        (r#"{"maxLength":1}"#, "\"é\"", "\"ab\""),
        (r#"{"items":{"type":"null"},"prefixItems":[{"type":"integer"}]}"#, "[1,null]", "[1,1]"),
        (r#"{"properties":{"a":{"type":"null"}},"required":["a"]}"#, r#"{"a":null}"#, "{}"),
        (r#"{"properties":{"a":{"type":"null"}}}"#, r#"{"b":1}"#, r#"{"a":1}"#),
        (r#"{"properties":{"a":{}},"additionalProperties":false}"#, r#"{"a":1}"#, r#"{"b":1}"#),
        (r#"{"oneOf":[{"type":"integer"},{"type":"number"}]}"#, "1.5", "1"),
        (r#"{"format":"date"}"#, "\"2024-02-29\"", "\"2023-02-29\""),
        (r#"{"format":"time"}"#, "\"10:00:00.5-01:00\"", "\"10:00:00\""),
        (r#"{"enum":[1,"a"]}"#, "1.0", "2"),
        (r#"{"minimum":3}"#, "3", "2"),
        (r##"{"$ref":"#/$defs/a","$defs":{"a":{"maximum":1}}}"##, "1", "2"),
    ] {
        let schema = json(schema);
        assert_eq!(fault(&schema, &json(good), &schema), None, "{schema}");
        assert!(fault(&schema, &json(bad), &schema).is_some(), "{schema} should refuse {bad}");
    }
}
