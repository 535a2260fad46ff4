//! Two schemas as one, and whether two can hold for one value.

use super::json::Json;
use super::{ANNOTATIONS, TYPES, bad, texts};
use crate::error::Result;

/// An object schema without some keywords.
pub(super) fn without(members: &[(String, Json)], keywords: &[&str]) -> Json {
    let kept = members.iter().filter(|m| !keywords.contains(&m.0.as_str()));
    Json::Object(kept.cloned().collect())
}

/// The types that a schema names.
pub(super) fn types(schema: &Json) -> Result<Option<Vec<&'static str>>> {
    let known = |value: &Json| {
        let name = value.as_text().unwrap_or_default();
        TYPES
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| bad("type", format!("no type is {name:?}")))
    };
    match schema.get("type") {
        None => Ok(None),
        Some(Json::List(list)) => {
            let mut types = list.iter().map(known).collect::<Result<Vec<_>>>()?;
            if types.contains(&"number") {
                types.retain(|name| *name != "integer");
            }
            Ok(Some(types))
        }
        Some(name) => Ok(Some(vec![known(name)?])),
    }
}

/// Whether a value is of a type.
pub(super) fn is_of(value: &Json, name: &str) -> bool {
    match value {
        Json::Null => name == "null",
        Json::Bool(_) => name == "boolean",
        Json::Number(n) => {
            name == "number" || (name == "integer" && n.as_f64().is_some_and(|n| n.fract() == 0.0))
        }
        Json::Text(_) => name == "string",
        Json::List(_) => name == "array",
        Json::Object(_) => name == "object",
    }
}

/// A schema that holds where both do.
///
/// # Errors
/// `GrammarError` naming a keyword that cannot be joined.
pub(super) fn both(a: &Json, b: &Json) -> Result<Json> {
    let (a_members, b_members) = match (a, b) {
        (Json::Bool(true), other) | (other, Json::Bool(true)) => return Ok(other.clone()),
        (Json::Object(a_members), Json::Object(b_members)) => (a_members, b_members),
        _ => return Ok(Json::Bool(false)),
    };
    check_closed(a, b)?;
    check_closed(b, a)?;
    let mut merged = a_members.clone();
    for (key, value) in b_members {
        let Some(at) = merged.iter().position(|m| m.0 == *key) else {
            merged.push((key.clone(), value.clone()));
            continue;
        };
        let known = &merged[at].1;
        if known == value || ANNOTATIONS.contains(&key.as_str()) {
            continue;
        }
        merged[at].1 = match key.as_str() {
            "type" => common_types(a, b)?,
            "required" => {
                let mut names = texts(a, "required")?;
                names.extend(texts(b, "required")?);
                Json::List(names.into_iter().map(Json::Text).collect())
            }
            "properties" => properties(known, value)?,
            "enum" => {
                let (Some(x), Some(y)) = (known.as_list(), value.as_list()) else {
                    return Err(bad("enum", "not a list"));
                };
                Json::List(x.iter().filter(|value| y.contains(value)).cloned().collect())
            }
            "minLength" | "minItems" | "minimum" | "exclusiveMinimum" => larger(key, known, value, true)?,
            "maxLength" | "maxItems" | "maximum" | "exclusiveMaximum" => larger(key, known, value, false)?,
            key => return Err(bad(key, "cannot be joined with another one")),
        };
    }
    Ok(Json::Object(merged))
}

/// `additionalProperties` looks at the properties of its own schema only: what joins it must not bring others.
fn check_closed(closed: &Json, other: &Json) -> Result<()> {
    if closed.get("additionalProperties").is_none_or(|more| *more == Json::Bool(true)) {
        return Ok(());
    }
    let named = |schema: &Json, name: &str| schema.get("properties").is_some_and(|p| p.get(name).is_some());
    let Some(Json::Object(others)) = other.get("properties") else { return Ok(()) };
    match others.iter().find(|(name, _)| !named(closed, name)) {
        Some((name, _)) => Err(bad("additionalProperties", format!("joined with another property {name:?}"))),
        None => Ok(()),
    }
}

fn common_types(a: &Json, b: &Json) -> Result<Json> {
    let (a, b) = (types(a)?.unwrap_or_default(), types(b)?.unwrap_or_default());
    let covers =
        |list: &[&str], name: &str| list.contains(&name) || (name == "integer" && list.contains(&"number"));
    let mut common: Vec<&str> = a.iter().copied().filter(|name| covers(&b, name)).collect();
    common.extend(b.iter().copied().filter(|name| covers(&a, name)));
    common.sort_unstable();
    common.dedup();
    Ok(Json::List(common.into_iter().map(|name| Json::Text(name.into())).collect()))
}

fn properties(a: &Json, b: &Json) -> Result<Json> {
    let (Json::Object(a), Json::Object(b)) = (a, b) else { return Err(bad("properties", "not an object")) };
    let mut merged = a.clone();
    for (name, schema) in b {
        match merged.iter_mut().find(|m| m.0 == *name) {
            Some(known) => {
                let all_of =
                    Json::Object(vec![("allOf".into(), Json::List(vec![known.1.clone(), schema.clone()]))]);
                known.1 = if known.1 == *schema { schema.clone() } else { all_of };
            }
            None => merged.push((name.clone(), schema.clone())),
        }
    }
    Ok(Json::Object(merged))
}

fn larger(key: &str, a: &Json, b: &Json, wanted: bool) -> Result<Json> {
    let (Json::Number(x), Json::Number(y)) = (a, b) else { return Err(bad(key, "not a number")) };
    let first = (x.as_f64() > y.as_f64()) == wanted;
    Ok(if first { a.clone() } else { b.clone() })
}

/// Whether it is certain that no value satisfies both schemas.
pub(super) fn apart(a: &Json, b: &Json) -> bool {
    let kinds = |schema: &Json| match (values(schema), types(schema)) {
        (None, Ok(Some(types))) => Some(types),
        _ => None,
    };
    if let (Some(x), Some(y)) = (values(a), values(b)) {
        return !x.iter().any(|value| y.contains(value));
    }
    for (fixed, other) in [(a, b), (b, a)] {
        let (Some(values), Some(types)) = (values(fixed), kinds(other)) else { continue };
        if !values.iter().any(|value| types.iter().any(|name| is_of(value, name))) {
            return true;
        }
    }
    let (Some(x), Some(y)) = (kinds(a), kinds(b)) else { return false };
    let overlap = |p: &str, q: &str| p == q || [(p, q), (q, p)].contains(&("integer", "number"));
    if !x.iter().any(|p| y.iter().any(|q| overlap(p, q))) {
        return true;
    }
    // Two kinds of objects: a property that both require tells them apart, or one that the other forbids.
    let only_objects = x == ["object"] && y == ["object"];
    only_objects && (told_by_a_property(a, b) || forbids_a_required(a, b) || forbids_a_required(b, a))
}

/// The values of `const` or `enum`.
fn values(schema: &Json) -> Option<Vec<&Json>> {
    match (schema.get("const"), schema.get("enum").and_then(Json::as_list)) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(list)) => Some(list.iter().collect()),
        (None, None) => None,
    }
}

fn told_by_a_property(a: &Json, b: &Json) -> bool {
    let (Ok(required), Ok(others)) = (texts(a, "required"), texts(b, "required")) else { return false };
    let property = |schema: &Json, name: &str| schema.get("properties").and_then(|p| p.get(name)).cloned();
    required.iter().filter(|name| others.contains(name)).any(|name| {
        match (property(a, name), property(b, name)) {
            (Some(x), Some(y)) => match (values(&x), values(&y)) {
                (Some(x), Some(y)) => !x.iter().any(|value| y.contains(value)),
                _ => false,
            },
            _ => false,
        }
    })
}

fn forbids_a_required(closed: &Json, other: &Json) -> bool {
    let is_closed = closed.get("additionalProperties") == Some(&Json::Bool(false));
    let named = |name: &str| closed.get("properties").is_some_and(|p| p.get(name).is_some());
    is_closed && texts(other, "required").is_ok_and(|names| names.iter().any(|name| !named(name)))
}
