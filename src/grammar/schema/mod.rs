//! JSON Schema (draft 2020-12) as rules.
//!
//! What is written always satisfies the schema; it need not be everything that would. Known parts that are
//! left out: properties that the schema does not name, unless `additionalProperties` or the lack of
//! `properties` asks for them; items beyond `prefixItems` without `items`; numbers of more than 15 digits;
//! another order of properties than the schema's. A keyword that is not supported is an error that names it.

mod json;
mod merge;
mod number;
mod pattern;
mod string;

use super::expr::{Expr, MAX_REPEAT, Rules, malformed, over_budget};
use crate::error::{Error, Result};
use json::{Json, quoted};
use std::collections::HashMap;

/// Longer schemas are refused.
const MAX_LEN: usize = 4 << 20;
/// More expressions are refused: references and combinations could multiply them.
const MAX_SCHEMAS: usize = 100_000;

/// Schemas within each other, through references too: recursion over them is bounded.
const MAX_DEPTH: usize = 100;

/// Keywords that say nothing about what is valid.
const ANNOTATIONS: [&str; 13] = [
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$vocabulary",
];

/// Keywords by the type of value that they are about.
const OF_STRINGS: [&str; 4] = ["minLength", "maxLength", "pattern", "format"];
const OF_NUMBERS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
const OF_ARRAYS: [&str; 5] = ["items", "prefixItems", "minItems", "maxItems", "uniqueItems"];
const OF_OBJECTS: [&str; 3] = ["properties", "required", "additionalProperties"];
const OF_ALL: [&str; 7] = ["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"];

const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

/// Rules for the JSON texts that a schema allows.
pub(super) fn rules(text: &str) -> Result<Rules> {
    if text.len() > MAX_LEN {
        return Err(over_budget(format!("a schema of {} bytes, at most {MAX_LEN}", text.len())));
    }
    let schema: Json = serde_json::from_str(text)
        .map_err(|error| malformed(format!("the schema is not JSON: {error}")).source(error))?;
    let mut writer = Writer::new(&schema);
    let body = writer.schema(&schema)?;
    writer.rules.root = writer.rules.add("root", body);
    Ok(writer.rules)
}

/// An error about a keyword.
fn bad(keyword: &str, what: impl std::fmt::Display) -> Error {
    malformed(format!("{keyword}: {what}")).key(keyword)
}

struct Writer<'a> {
    root: &'a Json,
    rules: Rules,
    /// The rule of each reference.
    references: HashMap<String, u32>,
    /// White space that may stand between the parts of a text.
    space: Expr,
    char: Expr,
    number: Expr,
    any: Option<Expr>,
    n_schemas: usize,
    depth: usize,
}

impl<'a> Writer<'a> {
    fn new(root: &'a Json) -> Writer<'a> {
        let mut rules = Rules::default();
        let blanks = Expr::Chars(vec![(0x09, 0x09), (0x20, 0x20)]).repeat(0, Some(20));
        let line = Expr::Seq(vec![Expr::text("\n"), blanks]);
        let space = rules.share("space", Expr::Any(vec![Expr::empty(), Expr::text(" "), line]));
        let char = string::any_char(&mut rules);
        let number = number::any_number(&mut rules);
        Writer {
            root,
            rules,
            references: HashMap::new(),
            space,
            char,
            number,
            any: None,
            n_schemas: 0,
            depth: 0,
        }
    }

    /// The texts that a schema allows.
    fn schema(&mut self, schema: &Json) -> Result<Expr> {
        self.n_schemas += 1;
        if self.n_schemas > MAX_SCHEMAS {
            return Err(over_budget(format!("more than {MAX_SCHEMAS} schemas")));
        }
        if self.depth >= MAX_DEPTH {
            return Err(over_budget(format!("more than {MAX_DEPTH} schemas within each other")));
        }
        self.depth += 1;
        let expr = match schema {
            Json::Bool(true) => Ok(self.any_value()),
            Json::Bool(false) => Err(malformed("the schema `false` allows nothing")),
            Json::Object(members) => self.object_schema(schema, members),
            other => Err(malformed(format!("{} is not a schema", other.write()))),
        };
        self.depth -= 1;
        expr
    }

    fn object_schema(&mut self, schema: &Json, members: &[(String, Json)]) -> Result<Expr> {
        check_keywords(members)?;
        let rest = || merge::without(members, &["anyOf", "oneOf", "allOf", "$ref"]);
        let has_rest = members.iter().any(|(key, _)| {
            !ANNOTATIONS.contains(&key.as_str())
                && !["anyOf", "oneOf", "allOf", "$ref"].contains(&key.as_str())
        });
        let combined =
            ["$ref", "allOf", "anyOf", "oneOf"].into_iter().filter(|key| schema.get(key).is_some());
        match combined.collect::<Vec<_>>()[..] {
            [] => self.plain(schema, members),
            ["$ref"] if !has_rest => self.reference(schema),
            [keyword] => {
                let branches: Vec<Json> = match keyword {
                    "$ref" => vec![self.target(schema)?.clone()],
                    _ => list_of_schemas(schema, keyword)?.to_vec(),
                };
                if keyword == "oneOf" {
                    self.check_apart(&branches)?;
                }
                let mut resolved = Vec::with_capacity(branches.len());
                for branch in branches {
                    resolved.push(if has_rest || keyword == "allOf" {
                        self.resolve(branch)?
                    } else {
                        branch
                    });
                }
                if matches!(keyword, "allOf" | "$ref") {
                    let merged = resolved.iter().try_fold(rest(), |all, branch| merge::both(&all, branch))?;
                    return self.schema(&merged);
                }
                let mut list = Vec::with_capacity(resolved.len());
                for branch in &resolved {
                    let branch = if has_rest { merge::both(&rest(), branch)? } else { branch.clone() };
                    list.push(self.schema(&branch)?);
                }
                Ok(Expr::Any(list))
            }
            [first, second, ..] => Err(bad(second, format!("not supported beside {first}"))),
        }
    }

    /// A schema that is not a mere reference.
    fn resolve(&self, mut schema: Json) -> Result<Json> {
        for _ in 0..32 {
            if schema.get("$ref").is_none() {
                return Ok(schema);
            }
            let target = self.target(&schema)?.clone();
            let Json::Object(members) = &schema else { return Ok(schema) };
            schema = merge::both(&merge::without(members, &["$ref"]), &target)?;
        }
        Err(bad("$ref", "references that lead to references without end"))
    }

    /// What `$ref` points to: the whole schema or a place in it.
    fn target(&self, schema: &Json) -> Result<&'a Json> {
        let reference =
            schema.get("$ref").and_then(Json::as_text).ok_or_else(|| bad("$ref", "not a text"))?;
        let missing = || bad("$ref", format!("{reference:?} is no place within the schema"));
        let path = reference.strip_prefix('#').ok_or_else(missing)?;
        let mut place = self.root;
        for step in path.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            place = match place {
                Json::List(list) => step.parse().ok().and_then(|i: usize| list.get(i)),
                place => place.get(&step),
            }
            .ok_or_else(missing)?;
        }
        if path.is_empty() || path.starts_with('/') { Ok(place) } else { Err(missing()) }
    }

    fn reference(&mut self, schema: &Json) -> Result<Expr> {
        let target = self.target(schema)?;
        let name = schema.get("$ref").and_then(Json::as_text).unwrap_or_default().to_string();
        if let Some(&rule) = self.references.get(&name) {
            return Ok(Expr::Rule(rule));
        }
        // Known before it is written, so that it may refer to itself.
        let rule = self.rules.add(name.clone(), Expr::empty());
        self.references.insert(name, rule);
        self.rules.list[rule as usize].1 = self.schema(target)?;
        Ok(Expr::Rule(rule))
    }

    /// A schema without references and combinations.
    fn plain(&mut self, schema: &Json, members: &[(String, Json)]) -> Result<Expr> {
        if schema.get("const").is_some() || schema.get("enum").is_some() {
            return fixed(schema, members);
        }
        let given = merge::types(schema)?;
        let types = given.unwrap_or_else(|| implied_types(members));
        if types.is_empty() {
            return Err(bad("type", "no type is left"));
        }
        if types.len() == TYPES.len() - 1 && !members.iter().any(|m| is_about_values(&m.0)) {
            return Ok(self.any_value());
        }
        let mut list = Vec::with_capacity(types.len());
        for name in types {
            list.push(match name {
                "object" => self.object(schema)?,
                "array" => self.array(schema)?,
                "string" => self.string(schema)?,
                "number" => self.numeric(schema, false)?,
                "integer" => self.numeric(schema, true)?,
                "boolean" => Expr::Any(vec![Expr::text("true"), Expr::text("false")]),
                _ => Expr::text("null"),
            });
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expr::Any(list) })
    }

    /// Any JSON value.
    fn any_value(&mut self) -> Expr {
        if let Some(any) = &self.any {
            return any.clone();
        }
        let rule = self.rules.add("value", Expr::empty());
        let value = Expr::Rule(rule);
        self.any = Some(value.clone());
        let string = string::within_quotes(self.char.clone().repeat(0, None));
        let member = Expr::Seq(vec![string.clone(), self.mark(":"), value.clone()]);
        let members = self.listed(member);
        let items = self.listed(value.clone());
        let words = ["true", "false", "null"].map(Expr::text);
        let braced = [("{", members, "}"), ("[", items, "]")]
            .map(|(open, inside, close)| self.enclosed(open, inside.optional(), close));
        let list = braced.into_iter().chain([string, self.number.clone()]).chain(words).collect();
        self.rules.list[rule as usize].1 = Expr::Any(list);
        value
    }

    /// A mark with white space behind it.
    fn mark(&self, mark: &str) -> Expr {
        Expr::Seq(vec![Expr::text(mark), self.space.clone()])
    }

    fn enclosed(&self, open: &str, inside: Expr, close: &str) -> Expr {
        Expr::Seq(vec![self.mark(open), inside, self.space.clone(), Expr::text(close)])
    }

    /// One or more of an item, with commas.
    fn listed(&mut self, item: Expr) -> Expr {
        let more = Expr::Seq(vec![self.mark(","), item.clone()]).repeat(0, None);
        Expr::Seq(vec![item, more])
    }

    fn object(&mut self, schema: &Json) -> Result<Expr> {
        let mut properties = match schema.get("properties") {
            None => Vec::new(),
            Some(Json::Object(properties)) => properties.clone(),
            Some(_) => return Err(bad("properties", "not an object")),
        };
        // Of equal names the last one counts, as in every reader of JSON.
        let names: Vec<String> = properties.iter().map(|p| p.0.clone()).collect();
        let mut place = 0;
        properties.retain(|(name, _)| {
            place += 1;
            !names[place..].contains(name)
        });
        let required = texts(schema, "required")?;
        let more = match schema.get("additionalProperties") {
            None if schema.get("properties").is_none() => Some(Json::Bool(true)),
            Some(Json::Bool(false)) => None,
            more => more.cloned(),
        };
        for name in &required {
            if !properties.iter().any(|p| p.0 == *name) {
                let unnamed = schema.get("additionalProperties").is_none().then_some(Json::Bool(true));
                let Some(of_more) = more.clone().or(unnamed) else {
                    return Err(bad("required", format!("additionalProperties forbids {name:?}")));
                };
                properties.push((name.clone(), of_more));
            }
        }
        // A property that no value can have is left out.
        let forbidden = properties.iter().find(|p| p.1 == Json::Bool(false) && required.contains(&p.0));
        if let Some((name, _)) = forbidden {
            return Err(bad("properties", format!("{name:?} is required but allows nothing")));
        }
        let names: Vec<String> = properties.iter().map(|p| p.0.clone()).collect();
        properties.retain(|p| p.1 != Json::Bool(false));
        let more = match more {
            Some(schema) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let value = self.schema(&schema)?;
                let key = string::within_quotes(string::other_keys(&names)?);
                let member = Expr::Seq(vec![key, self.mark(":"), value]);
                Some(self.rules.share("more properties", member))
            }
            None => None,
        };
        self.members(&properties, &required, more)
    }

    /// Braces around properties in their order and then any number of `more`.
    fn members(
        &mut self,
        properties: &[(String, Json)],
        required: &[String],
        more: Option<Expr>,
    ) -> Result<Expr> {
        let comma = self.mark(",");
        // From the last property on: the members that may come from here on, at least one (`some`); what may
        // follow a member (`rest`); and whether a required one is still to come.
        let (mut some, mut rest, mut must) = (None, Expr::empty(), false);
        if let Some(more) = more {
            let next = Expr::Seq(vec![comma.clone(), more.clone()]).repeat(0, None);
            rest = self.rules.share("more members", next);
            some = Some(Expr::Seq(vec![more, rest.clone()]));
        }
        for (name, schema) in properties.iter().rev() {
            let value = self.schema(schema)?;
            let member = Expr::Seq(vec![Expr::Text(quoted(name)), self.mark(":"), value, rest]);
            let is_required = required.contains(name);
            let from_here = match some {
                Some(later) if !is_required => Expr::Any(vec![member, later]),
                _ => member,
            };
            must |= is_required;
            let from_here = self.rules.share(format!("members from {name}"), from_here);
            let next = Expr::Seq(vec![comma.clone(), from_here.clone()]);
            rest = self.rules.share("more members", if must { next } else { next.optional() });
            some = Some(from_here);
        }
        let some = some.unwrap_or_else(Expr::empty);
        Ok(self.enclosed("{", if must { some } else { some.optional() }, "}"))
    }

    fn array(&mut self, schema: &Json) -> Result<Expr> {
        if schema.get("uniqueItems").is_some_and(|unique| *unique != Json::Bool(false)) {
            return Err(bad("uniqueItems", "not supported"));
        }
        let prefix = match schema.get("prefixItems") {
            None => &[][..],
            Some(_) => list_of_schemas(schema, "prefixItems")?,
        };
        let min = count(schema, "minItems")?.unwrap_or(0);
        let mut max = count(schema, "maxItems")?;
        let n_prefix = prefix.len() as u32;
        let items = match schema.get("items") {
            Some(Json::Bool(false)) => None,
            Some(items) => Some(items.clone()),
            None if prefix.is_empty() || min > n_prefix => Some(Json::Bool(true)),
            None => None,
        };
        if items.is_none() {
            max = Some(max.unwrap_or(n_prefix).min(n_prefix));
        }
        if max.is_some_and(|max| max < min) {
            return Err(bad("minItems", format!("{min} items, but there can be no more than {max:?}")));
        }
        let comma = self.mark(",");
        let after = |i: u32| if i == 0 { Expr::empty() } else { comma.clone() };
        // Behind the named items: as many more as the bounds leave.
        let mut list = match items {
            Some(items) if max.is_none_or(|max| max > n_prefix) => {
                let item = self.schema(&items)?;
                let item = self.rules.share("item", item);
                let (low, high) = (min.saturating_sub(n_prefix), max.map(|max| max - n_prefix));
                let next = Expr::Seq(vec![comma.clone(), item.clone()]);
                if n_prefix > 0 {
                    next.repeat(low, high)
                } else {
                    let more = next.repeat(low.saturating_sub(1), high.map(|high| high - 1));
                    let some = Expr::Seq(vec![item, more]);
                    if low == 0 { some.optional() } else { some }
                }
            }
            _ => Expr::empty(),
        };
        for (i, schema) in (0..n_prefix).zip(prefix).rev() {
            if max.is_some_and(|max| i >= max) {
                continue;
            }
            let item = Expr::Seq(vec![after(i), self.schema(schema)?, list]);
            list = self.rules.share("items", if i < min { item } else { item.optional() });
        }
        Ok(self.enclosed("[", list, "]"))
    }

    fn string(&mut self, schema: &Json) -> Result<Expr> {
        let given: Vec<&str> = OF_STRINGS.into_iter().filter(|key| schema.get(key).is_some()).collect();
        let text = |key| schema.get(key).and_then(Json::as_text).ok_or_else(|| bad(key, "not a text"));
        match given[..] {
            ["pattern"] => {
                let inside = pattern::parse(text("pattern")?, &mut self.rules);
                Ok(string::within_quotes(inside.map_err(|error| error.key("pattern"))?))
            }
            ["format"] => {
                let name = text("format")?;
                let inside = string::format(name);
                Ok(string::within_quotes(
                    inside.ok_or_else(|| bad("format", format!("{name:?} is not supported")))?,
                ))
            }
            [.., last @ ("pattern" | "format")] => {
                Err(bad(last, format!("not supported beside {}", given[0])))
            }
            _ => {
                let (min, max) = (count(schema, "minLength")?.unwrap_or(0), count(schema, "maxLength")?);
                if max.is_some_and(|max| max < min) {
                    return Err(bad("minLength", "above maxLength"));
                }
                Ok(string::within_quotes(self.char.clone().repeat(min, max)))
            }
        }
    }

    fn numeric(&mut self, schema: &Json, whole: bool) -> Result<Expr> {
        if !OF_NUMBERS.iter().any(|key| schema.get(key).is_some()) {
            return Ok(if whole { self.rules_integer() } else { self.number.clone() });
        }
        let bound = |key: &str| match schema.get(key) {
            None => Ok(None),
            Some(Json::Number(n)) => Ok(n.as_f64().filter(|n| n.abs() < 1e30)),
            Some(_) => Err(bad(key, "not a number")),
        };
        let mut low = bound("minimum")?;
        let mut high = bound("maximum")?;
        if whole {
            let above = bound("exclusiveMinimum")?.map(|x| x.floor() + 1.0);
            let below = bound("exclusiveMaximum")?.map(|x| x.ceil() - 1.0);
            low = [low.map(f64::ceil), above].into_iter().flatten().reduce(f64::max);
            high = [high.map(f64::floor), below].into_iter().flatten().reduce(f64::min);
        } else {
            for key in ["exclusiveMinimum", "exclusiveMaximum"] {
                if schema.get(key).is_some() {
                    return Err(bad(key, "supported for integers only"));
                }
            }
            for (key, value) in [("minimum", low), ("maximum", high)] {
                if value.is_some_and(|value| value.fract() != 0.0) {
                    return Err(bad(key, "for numbers only whole bounds are supported"));
                }
            }
        }
        let (low, high) = (low.map(|x| x as i128), high.map(|x| x as i128));
        let within = if whole { number::integers(low, high) } else { number::numbers(low, high) };
        within.ok_or_else(|| bad("minimum", "above the maximum"))
    }

    fn rules_integer(&mut self) -> Expr {
        number::integers(None, None).unwrap_or_else(Expr::empty)
    }

    /// That no value can satisfy two of these schemas, which `oneOf` asks for.
    fn check_apart(&self, branches: &[Json]) -> Result<()> {
        let resolved = branches.iter().map(|b| self.resolve(b.clone())).collect::<Result<Vec<_>>>()?;
        for (i, a) in resolved.iter().enumerate() {
            for (j, b) in resolved[..i].iter().enumerate() {
                if !merge::apart(a, b) {
                    let what = format!("alternatives {j} and {i} might both be satisfied; use anyOf");
                    return Err(bad("oneOf", what));
                }
            }
        }
        Ok(())
    }
}

fn is_about_values(keyword: &str) -> bool {
    OF_STRINGS.contains(&keyword)
        || OF_NUMBERS.contains(&keyword)
        || OF_ARRAYS.contains(&keyword)
        || OF_OBJECTS.contains(&keyword)
}

fn check_keywords(members: &[(String, Json)]) -> Result<()> {
    for (keyword, _) in members {
        let known = ANNOTATIONS.contains(&keyword.as_str()) || OF_ALL.contains(&keyword.as_str());
        if !known && !is_about_values(keyword) {
            return Err(bad(keyword, "this keyword is not supported"));
        }
    }
    Ok(())
}

/// The types that keywords are about, for a schema without `type`: values of other types would be valid, but
/// hardly meant. Without such keywords all types.
fn implied_types(members: &[(String, Json)]) -> Vec<&'static str> {
    let about = |keywords: &[&str]| members.iter().any(|m| keywords.contains(&m.0.as_str()));
    let implied = [
        ("object", about(&OF_OBJECTS)),
        ("array", about(&OF_ARRAYS)),
        ("string", about(&OF_STRINGS)),
        ("number", about(&OF_NUMBERS)),
    ];
    let named: Vec<&str> = implied.into_iter().filter(|i| i.1).map(|i| i.0).collect();
    if named.is_empty() { TYPES.into_iter().filter(|&name| name != "integer").collect() } else { named }
}

/// `const` and `enum`: the values that the rest of the schema does not forbid.
fn fixed(schema: &Json, members: &[(String, Json)]) -> Result<Expr> {
    for (keyword, _) in members {
        if is_about_values(keyword) {
            return Err(bad(keyword, "not supported beside enum and const"));
        }
    }
    let values = match (schema.get("enum"), schema.get("const")) {
        (Some(list), constant) => {
            let list = list.as_list().ok_or_else(|| bad("enum", "not a list"))?;
            list.iter().filter(|value| constant.is_none_or(|c| c == *value)).collect::<Vec<_>>()
        }
        (None, Some(constant)) => vec![constant],
        (None, None) => Vec::new(),
    };
    let types = merge::types(schema)?;
    let fits =
        |value: &&&Json| types.as_ref().is_none_or(|types| types.iter().any(|t| merge::is_of(value, t)));
    let texts: Vec<Expr> = values.iter().filter(fits).map(|value| Expr::Text(value.write())).collect();
    if texts.is_empty() {
        return Err(bad(if schema.get("enum").is_some() { "enum" } else { "const" }, "no value is left"));
    }
    Ok(Expr::Any(texts))
}

/// A list of schemas that is not empty.
fn list_of_schemas<'b>(schema: &'b Json, keyword: &str) -> Result<&'b [Json]> {
    match schema.get(keyword).and_then(Json::as_list) {
        Some(list) if !list.is_empty() => Ok(list),
        _ => Err(bad(keyword, "not a list of schemas")),
    }
}

fn texts(schema: &Json, keyword: &str) -> Result<Vec<String>> {
    let Some(value) = schema.get(keyword) else { return Ok(Vec::new()) };
    let list = value.as_list().unwrap_or(&[Json::Null]);
    let text =
        |item: &Json| item.as_text().map(String::from).ok_or_else(|| bad(keyword, "not a list of texts"));
    list.iter().map(text).collect()
}

/// A whole number, 0 or more.
fn count(schema: &Json, keyword: &str) -> Result<Option<u32>> {
    let Some(value) = schema.get(keyword) else { return Ok(None) };
    let number = match value {
        Json::Number(number) => number.as_f64(),
        _ => None,
    };
    match number {
        Some(n) if n >= 0.0 && n.fract() == 0.0 => {
            if n > f64::from(MAX_REPEAT) && !keyword.starts_with("max") {
                return Err(over_budget(format!("{keyword} of more than {MAX_REPEAT}")).key(keyword));
            }
            // An upper bound that large is none.
            Ok((n <= f64::from(MAX_REPEAT) / 2.0).then_some(n as u32))
        }
        _ => Err(bad(keyword, "not a whole number, 0 or more")),
    }
}
