//! Grammars: what they match, what they refuse, and what they cost.

use bitpane::error::Code;
use bitpane::grammar::Grammar;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

fn check(grammar: &Grammar, what: &str, yes: &[&str], no: &[&str]) {
    for text in yes {
        assert!(grammar.matches(text).unwrap(), "{what} should match {text:?}");
    }
    for text in no {
        assert!(!grammar.matches(text).unwrap(), "{what} should not match {text:?}");
    }
}

fn gbnf(text: &str, yes: &[&str], no: &[&str]) {
    check(&Grammar::from_gbnf(text).unwrap_or_else(|e| panic!("{text}: {e}")), text, yes, no);
}

#[test]
fn gbnf_means_what_its_description_says() {
    gbnf(r#"root ::= "abc""#, &["abc"], &["", "ab", "abcd"]);
    gbnf(r#"root ::= "a" | "b" "c" |"#, &["a", "bc", ""], &["b", "ac"]);
    gbnf(r#"root ::= [a-cx]+"#, &["a", "cabx"], &["", "d", "ad"]);
    gbnf(r#"root ::= [^a-c\n]"#, &["d", "é", "日", "😀"], &["a", "\n", "", "dd"]);
    gbnf(r#"root ::= [a-] [\]\\]"#, &["-]", "a\\"], &["b]", "a"]);
    gbnf("root ::= . \"!\"", &["x!", "\n!", "😀!"], &["!", "xx!"]);
    gbnf(r#"root ::= "a"* "b"? "c"+"#, &["c", "aaabcc", "bc"], &["", "ab", "bbc"]);
    gbnf(
        r#"root ::= "ab"{2} "c"{1,3} "d"{2,}"#,
        &["ababcdd", "ababcccddddd"],
        &["abcdd", "ababccccdd", "ababcd"],
    );
    gbnf(r#"root ::= [0-9]{0,3}"#, &["", "1", "123"], &["1234"]);
    gbnf(r#"root ::= ("a" | "b"){2,3}"#, &["ab", "bba"], &["a", "abab"]);
    gbnf("root ::= ( \"a\"\n  | \"b\" # or\n ) \"c\"", &["ac", "bc"], &["c"]);
    gbnf("root ::= \"a\" |\n  \"b\"\n# the end", &["a", "b"], &["ab"]);
    gbnf("root ::=\n \"a\" x\r\nx ::= \"b\" root | \"c\"\n", &["ac", "abac", "ababac"], &["ab", "c"]);
    gbnf(r#"root ::= "\x41\u00e9\U0001F600\t\"\\""#, &["Aé😀\t\"\\"], &["A"]);
    gbnf(r#"root ::= [\u4e00-\u9fff]"#, &["日"], &["a", "é", "\u{a000}"]);
    gbnf("my-rule2 ::= \"x\"\nroot ::= my-rule2 my-rule2", &["xx"], &["x"]);
    // Nested and empty repetitions end.
    gbnf(r#"root ::= (("a"?)*)* "b""#, &["b", "aab"], &["a"]);
    gbnf(r#"root ::= ("a" | "")+ ("")*"#, &["", "aa"], &["b"]);
    // Brackets within each other, and a tail call without end.
    let nested = r#"root ::= "(" root ")" | """#;
    gbnf(nested, &["", "()", "((()))", &("(".repeat(5000) + &")".repeat(5000))], &["(", "(()"]);
    gbnf(r#"root ::= "x" root | "x""#, &["x", &"x".repeat(100_000)], &[""]);
    // An alternative that never ends is not followed.
    gbnf("root ::= \"a\" | \"b\" loop\nloop ::= \"c\" loop", &["a"], &["b", "bc"]);
}

#[test]
fn bytes_are_followed_within_characters() {
    let grammar = Grammar::from_gbnf("root ::= [\\u0080-\\u0800\\U00010000-\\U0010FFFF]*").unwrap();
    let text: String = ['\u{80}', '\u{7ff}', '\u{800}', '\u{10000}', '\u{10ffff}'].iter().collect();
    check(&grammar, "ranges", &[&text, ""], &["\u{801}", "\u{ffff}", "a"]);
}

#[test]
fn a_malformed_grammar_is_a_typed_error() {
    for (text, part) in [
        ("", "no rule \"root\""),
        ("x ::= \"a\"", "no rule \"root\""),
        ("root ::= x", "\"x\" is used but not defined"),
        ("root ::= \"a\"\nroot ::= \"b\"", "defined twice"),
        ("root ::= \"a", "the end of the literal"),
        ("root ::= [a", "expected \"]\""),
        ("root ::= (\"a\"", "expected \")\""),
        ("root ::= \"a\")", "the end of the line"),
        ("root ::= *", "the end of the line"),
        ("root = \"a\"", "expected ::="),
        ("root ::= \"\\q\"", "no escape"),
        ("root ::= \"\\u12\"", "unfinished escape"),
        ("root ::= \"\\uD800\"", "no character"),
        ("root ::= [\\U00110000]", "no character"),
        ("root ::= [z-a]", "is empty"),
        ("root ::= \"a\"{3,2}", "to less"),
        ("root ::= \"a\"{x}", "expected a number"),
        ("root ::= <think>", "tokens are not supported"),
        ("root ::= []", "no finite text"),
        ("root ::= \"a\" root", "no finite text"),
        ("root ::= root \"a\" | \"b\"", "\"root\" is left recursive"),
        ("root ::= x\nx ::= y \"a\" | \"b\"\ny ::= x", "left recursive"),
        ("root ::= \"\"? root \"a\" | \"b\"", "left recursive"),
        ("root ::= x{0,3} \"a\"\nx ::= (x | \"b\")*", "left recursive"),
    ] {
        let error = Grammar::from_gbnf(text).expect_err(text);
        assert_eq!(error.code, Code::GrammarError, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
    let error = Grammar::from_gbnf("root ::= \"a\"\nroot ::= ~").unwrap_err();
    assert!(error.offset.is_some());
}

#[test]
fn a_grammar_that_takes_too_much_is_a_typed_error() {
    let budget = |text: &str| {
        let error = Grammar::from_gbnf(text).and_then(|g| g.matches(&"x".repeat(200))).expect_err("a budget");
        assert_eq!(error.code, Code::GrammarBudget, "{error}");
    };
    budget("root ::= \"x\"{0,4000000000}");
    budget("root ::= \"x\"{0,4000000}");
    budget(&format!("root ::= {}\"x\"{}", "(".repeat(300), ")".repeat(300)));
    // Two ways to go on at each character: 2^200 ways to read the text.
    budget("root ::= \"x\" root \"y\" | \"x\" root \"z\" | \"x\"");
    // 1 MiB of rules: read, or refused, but quickly.
    let long: String = (0..60_000).map(|i| format!("r{i} ::= [^a] r{}\n", i + 1)).collect();
    assert!(long.len() > 1 << 20);
    let whole = format!("{long}r60000 ::= \"x\"\nroot ::= r0");
    match Grammar::from_gbnf(&whole) {
        Ok(grammar) => assert!(!grammar.matches("xx").unwrap()),
        Err(error) => assert_eq!(error.code, Code::GrammarBudget),
    }
    budget(&format!("root ::= {}", "[^a] ".repeat(300_000)));
    budget(&"# ".repeat(3 << 20));
    // Repetitions within repetitions do not multiply, unless each could be empty in a million ways.
    gbnf(
        "root ::= (((\"x\"{1,1000} \"y\"){0,1000} \"z\"){0,1000} \"!\"){0,1000}",
        &["", "xxyxyz!", "z!!"],
        &["y"],
    );
    budget("root ::= (((\"x\"{0,1000}){0,1000}){0,1000}){0,1000}");
}

fn schema(text: &str, yes: &[&str], no: &[&str]) {
    check(&Grammar::from_json_schema(text).unwrap_or_else(|e| panic!("{text}: {e}")), text, yes, no);
}

#[test]
fn schemas_of_each_type() {
    schema(r#"{"type": "null"}"#, &["null"], &["", "nul", "true"]);
    schema(r#"{"type": "boolean"}"#, &["true", "false"], &["null"]);
    schema(r#"{"type": "integer"}"#, &["0", "-1", "120"], &["01", "1.5", "-", "", "-0"]);
    schema(r#"{"type": "number"}"#, &["0", "-1.5", "1e5", "2.25E-3", "-0"], &["1.", ".5", "01", "1e"]);
    schema(
        r#"{"type": "string"}"#,
        &[r#""""#, r#""a é\n\"\u00e9""#],
        &["\"\n\"", r#"""""#, r#""\ud800""#, r#""\x""#],
    );
    schema(
        r#"{"type": ["string", "null"], "maxLength": 2}"#,
        &[r#""ab""#, "null", r#""\n\\""#],
        &[r#""abc""#, "1"],
    );
    schema(r#"{"type": "string", "minLength": 2}"#, &[r#""日本""#, r#""abc""#], &[r#""a""#]);
    schema(
        r#"{"enum": ["a", 1, null, {"b": [2]}]}"#,
        &["\"a\"", "1", "null", r#"{"b":[2]}"#],
        &["2", "\"b\""],
    );
    schema(r#"{"const": "x", "type": "string"}"#, &["\"x\""], &["x"]);
    schema(r#"{"type": "integer", "enum": [1, "a", 2.5]}"#, &["1"], &["\"a\"", "2.5"]);
    schema("true", &["1", "[]", "{}", r#"[1, {"a": [null, "b"]}]"#], &["", "[1,]", "{1: 2}"]);
    schema(
        r#"{"type": "string", "format": "date"}"#,
        &["\"2024-12-31\"", "\"2023-02-28\""],
        &["\"2024-13-01\"", "\"2023-02-30\"", "\"2023-04-31\""],
    );
    schema(
        r#"{"format": "time"}"#,
        &["\"23:59:59Z\"", "\"00:00:00.5+02:00\""],
        &["\"24:00:00Z\"", "\"12:00\""],
    );
    schema(r#"{"format": "uuid"}"#, &["\"123e4567-e89b-12d3-a456-426614174000\""], &["\"123e4567\""]);
}

#[test]
fn integers_lie_within_their_bounds() {
    for (low, high) in
        [(0, 0), (3, 7), (0, 10), (9, 10), (-5, 5), (-120, -7), (17, 1234), (99, 101), (-1, 0), (100, 199)]
    {
        let grammar =
            Grammar::from_json_schema(&format!(r#"{{"type":"integer","minimum":{low},"maximum":{high}}}"#))
                .unwrap();
        for value in -1500..1500 {
            let inside = (low..=high).contains(&value);
            assert_eq!(grammar.matches(&value.to_string()).unwrap(), inside, "{value} in {low}..={high}");
        }
    }
    let both = r#"{"type":"integer","exclusiveMinimum":0.5,"exclusiveMaximum":4}"#;
    schema(both, &["1", "3"], &["0", "4"]);
    schema(
        r#"{"type":"integer","minimum":12}"#,
        &["12", "99", "123456789012345"],
        &["11", "-12", "1234567890123456"],
    );
    schema(r#"{"type":"integer","maximum":-3}"#, &["-3", "-40"], &["-2", "0", "3"]);
    schema(
        r#"{"type":"number","minimum":-2,"maximum":3}"#,
        &["-2", "-1.99", "0.5", "2.75", "3", "-0.5"],
        &["3.1", "-2.1", "4", "-3"],
    );
    schema(r#"{"type":"number","minimum":2}"#, &["2", "2.5", "100.25"], &["1.9", "-3"]);
}

#[test]
fn objects_and_arrays() {
    let person = r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"x":{"type":"null"}},"required":["age"]}"#;
    schema(
        person,
        &[r#"{"age":1}"#, r#"{"name": "a", "age": 1}"#, "{\n  \"name\":\"a\",\"age\":1,\n \"x\":null\n}"],
        &["{}", r#"{"name":"a"}"#, r#"{"age":1,"name":"a"}"#, r#"{"age":1,}"#, r#"{"age":1,"y":1}"#],
    );
    schema(
        r#"{"properties":{"a":{"type":"null"},"b":{"type":"null"}}}"#,
        &["{}", r#"{"a":null}"#, r#"{"b":null}"#, r#"{"a":null,"b":null}"#],
        &[r#"{"b":null,"a":null}"#],
    );
    let more =
        r#"{"type":"object","properties":{"ab":{"type":"null"}},"additionalProperties":{"type":"integer"}}"#;
    schema(
        more,
        &["{}", r#"{"a":1}"#, r#"{"":1,"abc":2,"b":3}"#, r#"{"ab":null,"ac":2}"#],
        &[r#"{"ab":1}"#, r#"{"\u0061b":1}"#, r#"{"a":null}"#, r#"{"a":1,"ab":2}"#],
    );
    schema(r#"{"type":"object"}"#, &["{}", r#"{"a":[1]}"#], &["[]"]);
    schema(r#"{"type":"object","properties":{"a":false,"b":true}}"#, &["{}", r#"{"b":[]}"#], &[r#"{"a":1}"#]);
    schema(r#"{"type":"object","required":["k"],"properties":{}}"#, &[r#"{"k":1}"#], &["{}"]);

    schema(
        r#"{"type":"array","items":{"type":"integer"}}"#,
        &["[]", "[1]", "[1, 2,3]", "[ 1 ]"],
        &["[1 2]", "[null]", "[,]"],
    );
    schema(
        r#"{"items":{"type":"null"},"minItems":2,"maxItems":3}"#,
        &["[null,null]", "[null,null,null]"],
        &["[null]", "[null,null,null,null]", "[]"],
    );
    schema(r#"{"items":{"type":"null"},"maxItems":0}"#, &["[]"], &["[null]"]);
    let tuple = r#"{"prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"type":"null"},"minItems":1,"maxItems":4}"#;
    schema(
        tuple,
        &["[1]", r#"[1,"a"]"#, r#"[1,"a",null,null]"#],
        &["[]", r#"["a"]"#, "[1,null]", r#"[1,"a",null,null,null]"#],
    );
    schema(
        r#"{"prefixItems":[{"type":"integer"},{"type":"null"}],"items":false}"#,
        &["[]", "[1]", "[1,null]"],
        &["[1,null,1]"],
    );
    schema(r#"{"prefixItems":[{"type":"integer"}],"minItems":2}"#, &["[1,2]", "[1,{}]"], &["[1]"]);
    schema(
        r#"{"prefixItems":[{"type":"integer"},{"type":"null"}],"maxItems":1}"#,
        &["[1]", "[]"],
        &["[1,null]"],
    );
}

#[test]
fn references_and_combinations() {
    let tree = r##"{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["v"]}}}"##;
    schema(
        tree,
        &[r#"{"v":1}"#, r#"{"v":1,"kids":[{"v":2,"kids":[]},{"v":3}]}"#],
        &["{}", r#"{"v":1,"kids":[{}]}"#],
    );
    schema(
        r##"{"type":"array","items":{"$ref":"#"},"maxItems":2}"##,
        &["[]", "[[],[[]]]"],
        &["[[],[],[]]", "[1]"],
    );
    schema(r##"{"$ref":"#/definitions/a~1b","definitions":{"a/b":{"const":5}}}"##, &["5"], &["4"]);
    schema(
        r#"{"anyOf":[{"type":"integer"},{"type":"string","maxLength":1}]}"#,
        &["12", "\"a\""],
        &["\"ab\"", "null"],
    );
    schema(r#"{"oneOf":[{"type":"integer"},{"type":"string"}]}"#, &["12", "\"a\""], &["null"]);
    let told = r#"{"oneOf":[{"type":"object","properties":{"t":{"const":"a"},"x":{"type":"null"}},"required":["t","x"]},{"type":"object","properties":{"t":{"const":"b"}},"required":["t"]}]}"#;
    schema(told, &[r#"{"t":"a","x":null}"#, r#"{"t":"b"}"#], &[r#"{"t":"a"}"#]);
    let all = r##"{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"$ref":"#/$defs/b"}],"$defs":{"b":{"properties":{"a":{"minimum":5},"b":{"type":"null"}},"required":["b"]}}}"##;
    schema(all, &[r#"{"a":5,"b":null}"#], &[r#"{"a":4,"b":null}"#, r#"{"a":5}"#]);
    schema(
        r##"{"$ref":"#/$defs/s","maxLength":2,"$defs":{"s":{"type":"string","minLength":1}}}"##,
        &["\"ab\""],
        &["\"\"", "\"abc\""],
    );
    schema(
        r#"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"anyOf":[{"required":["a"]},{"required":["b"]}]}"#,
        &[r#"{"a":null}"#, r#"{"b":null}"#],
        &["{}"],
    );
}

#[test]
fn patterns() {
    let pattern = |pattern: &str, yes: &[&str], no: &[&str]| {
        let text = serde_json::json!({ "type": "string", "pattern": pattern }).to_string();
        let quote = |list: &[&str]| list.iter().map(|t| serde_json::json!(t).to_string()).collect::<Vec<_>>();
        let (yes, no) = (quote(yes), quote(no));
        let refs = |list: &[String]| list.iter().map(|t| t.clone().leak() as &str).collect::<Vec<_>>();
        schema(&text, &refs(&yes), &refs(&no));
    };
    pattern("^a[bc]+$", &["ab", "acb"], &["a", "xab", "abx"]);
    pattern("b", &["b", "abc"], &["", "ac"]);
    pattern("^a|b$", &["a", "ax", "xb"], &["xa", "bx"]);
    pattern(r"^\d{2,3}-\w*$", &["12-", "123-a_1"], &["1-", "1234-", "12-é"]);
    pattern(r"^(?:ab|c)?d$", &["d", "abd", "cd"], &["abcd"]);
    pattern(r#"^"\\\n[^a-z]$"#, &["\"\\\nA", "\"\\\n\u{1}"], &["\"\\\na"]);
    pattern(r"^.$", &["a", "é", "\"", "\t"], &["", "\n", "ab"]);
    pattern(r"^[\d.]+?\u0041$", &["1.A"], &["A"]);
    for bad in [r"(?=a)", r"\bword", r"(a)\1", r"\p{L}", "a**", "[a", "(a", "a{2,1}", "a^b"] {
        let error =
            Grammar::from_json_schema(&serde_json::json!({ "pattern": bad }).to_string()).expect_err(bad);
        assert!(matches!(error.code, Code::GrammarError | Code::GrammarBudget), "{bad}: {error}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for (text, key) in [
        (r#"{"not":{}}"#, "not"),
        (r#"{"if":{}}"#, "if"),
        (r#"{"type":"object","patternProperties":{}}"#, "patternProperties"),
        (r#"{"type":"object","minProperties":1}"#, "minProperties"),
        (r#"{"type":"array","uniqueItems":true}"#, "uniqueItems"),
        (r#"{"type":"array","contains":{}}"#, "contains"),
        (r#"{"type":"number","multipleOf":2}"#, "multipleOf"),
        (r#"{"type":"number","exclusiveMinimum":2}"#, "exclusiveMinimum"),
        (r#"{"type":"number","minimum":2.5}"#, "minimum"),
        (r#"{"type":"string","format":"email"}"#, "format"),
        (r#"{"type":"string","pattern":"a","minLength":1}"#, "pattern"),
        (r#"{"type":"text"}"#, "type"),
        (r#"{"type":"string","minLength":-1}"#, "minLength"),
        (r#"{"type":"string","minLength":3,"maxLength":2}"#, "minLength"),
        (r#"{"enum":[]}"#, "enum"),
        (r#"{"enum":["a"],"maxLength":1}"#, "maxLength"),
        (r##"{"$ref":"#/nowhere"}"##, "$ref"),
        (r#"{"$ref":"https://example.com"}"#, "$ref"),
        (r#"{"oneOf":[{"type":"integer"},{"type":"number"}]}"#, "oneOf"),
        (r#"{"allOf":[{"pattern":"a"},{"pattern":"b"}]}"#, "pattern"),
        (r#"{"required":["a"],"properties":{},"additionalProperties":false}"#, "required"),
    ] {
        let error = Grammar::from_json_schema(text).expect_err(text);
        assert_eq!((error.code, error.key.as_deref()), (Code::GrammarError, Some(key)), "{text}: {error}");
    }
    for text in ["", "{", "3", "[]", "false", r##"{"$ref":"#"}"##, r##"{"allOf":[{"$ref":"#"}]}"##] {
        let error = Grammar::from_json_schema(text).expect_err(text);
        assert!(matches!(error.code, Code::GrammarError | Code::GrammarBudget), "{text}: {error}");
    }
    // Nested deeper than any reader of JSON goes.
    let deep = r#"{"items":"#.repeat(400) + "{}" + &"}".repeat(400);
    assert!(Grammar::from_json_schema(&deep).is_err());
    let wide = |n: usize| {
        let list: Vec<String> =
            (0..n).map(|i| format!(r#""p{i}":{{"type":"string","maxLength":9}}"#)).collect();
        Grammar::from_json_schema(&format!(r#"{{"properties":{{{}}}}}"#, list.join(",")))
    };
    let grammar = wide(2000).unwrap();
    check(&grammar, "many properties", &["{}", r#"{"p7":"a","p1999":"b"}"#], &[r#"{"p7":"a","p6":"b"}"#]);
    match wide(50_000).and_then(|grammar| grammar.matches("{}")) {
        Ok(matched) => assert!(matched),
        Err(error) => assert_eq!(error.code, Code::GrammarBudget, "{error}"),
    }
}
