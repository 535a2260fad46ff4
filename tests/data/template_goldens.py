"""What chat templates give in Python's Jinja, set up as transformers' apply_chat_template does.

    pip install jinja2==3.1.6
    python tests/data/template_goldens.py > tests/data/template_goldens.json

Of the templates beside the checkout (../shared) it keeps the length in bytes and the FNV-1a hash of each
result; of the small ones in this file, the result. An error is `null`.
"""

import datetime
import json
import sys
from pathlib import Path

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

TOKENIZERS = Path(__file__).resolve().parents[2] / ".." / "shared/data/tokenizers"
NOW = datetime.datetime(2024, 7, 26, 9, 5, 3)


class Generation(Extension):
    """{% generation %}: a scope of its own, its text as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("text"), [], [], body).set_lineno(line)

    def text(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


ENV = environment()


def rendered(source, variables):
    try:
        return ENV.from_string(source).render(**variables)
    except Exception as error:  # whatever Python raises: the template refuses
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return None


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a place, with \"feels like\" & more.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city's name, e.g. Zürich"},
                "days": {"type": "integer", "description": "Days ahead", "default": 1, "minimum": 0, "maximum": 9},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "tags": {"type": "array", "items": {"type": "string"}},
                "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
                          "required": ["lat"]},
            },
            "required": ["city"],
        },
        "return": {"type": "string", "description": "A sentence"},
    },
}
CALL = {"id": "call00001", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "exact": True, "t": 1.5}}}
TOOL_TURNS = [
    {"role": "user", "content": "What is the weather in Zürich?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "{\"sky\": \"clear <b>\"}"},
    {"role": "assistant", "content": "It is clear."},
    {"role": "user", "content": "And tomorrow?"},
]
TEXT_CALL = {**CALL, "function": {"name": "get_weather", "arguments": "{\"city\": \"Zürich\"}"}}

CONVERSATIONS = {
    "user": {"messages": [{"role": "user", "content": "  Hello, who are you?\n"}]},
    "system": {"messages": [
        {"role": "system", "content": "You are \"brief\" & kind.\n\nAlways."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": " <think>hmm</think>Hello! \U0001f600\n"},
        {"role": "user", "content": "2 < 3?"},
    ]},
    "tool call": {"messages": TOOL_TURNS},
    "tool call, text": {"messages": [
        TOOL_TURNS[0], {"role": "assistant", "content": "", "tool_calls": [TEXT_CALL]}, *TOOL_TURNS[2:]]},
    "tools": {"messages": [{"role": "user", "content": "What is the weather in Zürich?"}], "tools": [WEATHER]},
    "tools, system, call": {
        "messages": [{"role": "system", "content": "Use tools."}, *TOOL_TURNS], "tools": [WEATHER],
        "documents": [{"title": "A", "text": "Clouds."}]},
    "empty system, no thinking": {
        "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}], "enable_thinking": False},
    "parts": {"messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is"}, {"type": "text", "text": " this?"}]}]},
    "not alternating": {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
    "no generation prompt": {"messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "add_generation_prompt": False},
}
BASE = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}

# (source, variables): the language itself. Sources are this project's own.
CASES = [
    # white space
    ("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", {}),
    ("a {%- if true -%} b {%- endif %} c", {}),
    ("a\n  {%+ if true %}b{% endif +%}\nc", {}),
    ("{{ 1 }}  {% if true %}x{% endif %}\n\n\ny\n\n", {}),
    ("a\n  {# note #}\n  {#- more -#}  b", {}),
    ("{% raw %}{{ a }} {% if %}{% endraw %}\nb", {}),
    ("  {%- raw -%}  x  {%- endraw -%}  y", {}),
    ("{% if true %}\n\n  x{% endif %}\r\n y", {}),
    ("{{ '}}' }}{{ {'a': {'b': 1}}['a']['b'] }}", {}),
    ("x{% set a = 1 -%}   \n  y{{- a -}}   z", {}),
    ("{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\nend", {}),
    # literals and operators
    ("{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}", {}),
    ("{{ 1.0 }} {{ 1e20 }} {{ 0.00001 }} {{ 1.5e-7 }} {{ 10 / 4 }} {{ 1_000 }} {{ 123456789012345.0 }}", {}),
    ("{{ 'a' 'b' ~ 1 ~ none ~ true ~ missing ~ 2.0 }}", {}),
    ("{{ 'a\\n\\t\\u00e9\\x41\\\\\\'' }}", {}),
    ("{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ 'a' < 'b' }}", {}),
    ("{{ 'a' in 'cat' }} {{ 'x' not in ['y'] }} {{ 'k' in {'k': 1} }} {{ 3 in [1, 2] }} {{ 'a' in missing }}", {}),
    ("{{ not true or true and false }} {{ '' or 'x' }} {{ 0 and 1 }} {{ [] or none }}", {}),
    ("{{ 'y' if true else 'n' }} {{ 'y' if false }}| {{ 1 if false else 2 if true else 3 }}", {}),
    ("{{ [1, 'a', none, true, 1.5, {'k': [(1,), (1, 2), ()]}] }}", {}),
    ("{{ ['it\\'s', '\"', 'both \\' \"', '\\n', 'é'] }}", {}),
    ("{{ 'ab' * 3 }} {{ [1] * 2 }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ 2 * 'x' }}", {}),
    ("{{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ [1, 2, 3, 4][::2] }} {{ 'abc'[5:] }}", {}),
    ("{{ 'abcdef'[4:1:-1] }} {{ 'abcdef'[-100:2] }} {{ [1, 2, 3][:-1] }} {{ 'añb'[1] }} {{ 'abc'[-1] }}", {}),
    ("{{ a.b.c }} {{ a['b']['c'] }} {{ a.b['c'] }} {{ l.0 }} {{ l[-1] }} {{ a.x }}|{{ l[9] }}|", {"a": {"b": {"c": 5}}, "l": [1, 2]}),
    ("{{ a.x.y }}", {"a": {}}),
    ("{{ missing.x }}", {}),
    ("{{ missing['x'] }}", {}),
    ("{{ missing + 1 }}", {}),
    ("{{ 'a' + 1 }}", {}),
    ("{{ 1 / 0 }}", {}),
    ("{{ 1 < 'a' }}", {}),
    ("{{ none.x }}|{{ none is none }}", {}),
    ("{{ -x }} {{ +3 }} {{ - 3 | abs }} {{ (-3) | abs }}", {"x": 4}),
    ("{{ 1 if x is defined else 2 }} {{ x is not defined }} {{ not x is defined }}", {}),
    ("{{ '%s and %d, %.2f%%' % ('a', 3, 1.5) }} {{ '%s' % 'x' }}", {}),
    ("{{ 'a {} b {}'.format(1, 'x') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{n}'.format(n=2) }}", {}),
    # statements
    ("{% for x in [3, 1] %}{{ loop.index }}/{{ loop.length }}{{ loop.first }}{{ loop.last }}{{ loop.revindex0 }}{{ x }};{% endfor %}", {}),
    ("{% for k, v in d.items() %}{{ k }}={{ v }}{% if not loop.last %}, {% endif %}{% endfor %}", {"d": {"b": 1, "a": [2]}}),
    ("{% for k in d %}{{ k }}{% endfor %}{% for c in 'aé' %}{{ c }}.{% endfor %}", {"d": {"b": 1, "a": 2}}),
    ("{% for x in [] %}x{% else %}none{% endfor %}{% for x in missing %}x{% else %}gone{% endfor %}", {}),
    ("{% for x in range(10) if x % 2 %}{{ x }}{{ loop.last }} {% endfor %}", {}),
    ("{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %}", {}),
    ("{% for a in [1, 2] %}{% for b in [1, 2] %}{{ loop.index }}{{ loop.depth }}{% endfor %}{{ loop.index }} {% endfor %}", {}),
    ("{% for x in [1, 2, 3] %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {{ loop.cycle('a', 'b') }} {% endfor %}", {}),
    ("{% for x in [1, 1, 2] %}{{ loop.changed(x) }} {% endfor %}", {}),
    ("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", {}),
    ("{% set ns = namespace(a=1, b='x') %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}", {}),
    ("{% set a, b = [1, 2] %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}", {}),
    ("{% set x %}  a {{ 1 }}{% endset %}[{{ x }}]{% set y | trim | upper %} b {% endset %}[{{ y }}]", {}),
    ("{% if a %}1{% elif b %}2{% else %}3{% endif %}", {"b": True}),
    ("{% if x is defined %}{% set y = 1 %}{% endif %}{{ y }}", {"x": 0}),
    ("{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}{{ m() }}", {}),
    ("{% set g = 1 %}{% macro m() %}{{ g }}{{ later }}{% endmacro %}{% set later = 2 %}{{ m() }}", {}),
    ("{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}", {}),
    ("{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}in{% endcall %}", {}),
    ("{% macro w(l) %}{% for x in l %}{{ caller(x) }},{% endfor %}{% endmacro %}{% call(x) w([1, 2]) %}[{{ x }}]{% endcall %}", {}),
    ("{% filter upper | replace('A', 'b') %}xay{% endfilter %}", {}),
    ("{% with a = 1, b = 2 %}{{ a }}{{ b }}{% set c = 3 %}{% endwith %}{{ a }}{{ c }}", {}),
    ("a{% generation %}\n b{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}c", {}),
    ("{{ raise_exception('no') }}", {}),
    ("{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %y %I %p') }}", {}),
    ("{{ range(3) | list }}{{ range(1, 4) | list }}{{ range(5, 0, -2) | list }}", {}),
    ("{{ dict(a=1, b=2) }}{{ dict([('x', 1)]) }}", {}),
    # filters
    ("{{ d | tojson }} {{ d | tojson(indent=2) }} {{ [] | tojson }} {{ {} | tojson(indent=4) }}",
     {"d": {"é": "<a & 'b'>\n\t\"\\\u0007\U0001f600", "l": [1, 2.5, None, True, [], {}], "n": {"x": 1}}}),
    ("{{ d | tojson(ensure_ascii=True) }} {{ d | tojson(separators=(',', ':')) }} {{ d | tojson(sort_keys=true) }}", {"d": {"é": "\U0001f600", "a": [1, 2]}}),
    ("{{ missing | tojson }}", {}),
    ("{{ '  a b ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ 'abc' | length }}{{ [1, 2] | count }}{{ missing | length }}", {}),
    ("{{ 'aBc' | upper }}{{ 'aBc' | lower }}{{ 'hELLO wORLD' | title }}{{ 'hELLO' | capitalize }}", {}),
    ("{{ 'hello-world foo' | title }} {{ \"it's a dog's life\" | title }}", {}),
    ("{{ [1, 'a', none] | join(', ') }} {{ [{'n': 1}, {'n': 2}] | join('-', attribute='n') }} {{ 'abc' | join('.') }}", {}),
    ("{{ missing | default('d') }}{{ '' | default('d') }}{{ '' | default('d', true) }}{{ none | d('x') }}", {}),
    ("{{ 'aaa' | replace('a', 'b') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 12 | replace(1, 'x') }} {{ 'ab' | replace('', '-') }}", {}),
    ("{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(1, blank=true) }}|{{ 'a\nb' | indent('> ') }}", {}),
    ("{{ [1, 2, 3] | first }}{{ [1, 2, 3] | last }}{{ [] | first }}{{ 'abc' | first }}", {}),
    ("{{ l | map(attribute='a.b') | list }} {{ ['a', 'b'] | map('upper') | list }} {{ ['a b', 'c'] | map('replace', 'a', 'x') | join(',') }}", {"l": [{"a": {"b": 1}}, {"a": {"b": 2}}]}),
    ("{{ l | map(attribute='x', default='-') | list }}", {"l": [{"x": 1}, {}]}),
    ("{{ l | selectattr('r', 'equalto', 'u') | list }} {{ l | rejectattr('r') | list }} {{ l | selectattr('t', 'defined') | map(attribute='t') | list }}", {"l": [{"r": "u", "t": 1}, {"r": ""}]}),
    ("{{ [1, 2, 3, 4] | select('odd') | list }} {{ [0, 1, ''] | reject | list }} {{ [1, 5] | select('gt', 2) | list }} {{ ['a', 1] | select('string') | list }}", {}),
    ("{{ ['b', 'A', 'a', 'B'] | unique | list }} {{ ['b', 'A', 'c'] | sort }} {{ [3, 1, 2] | sort(reverse=true) }} {{ [{'n': 2}, {'n': 1}] | sort(attribute='n') }}", {}),
    ("{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1, 'a': 2} | items | list }} {{ {'b': 1, 'a': 2} | dictsort(by='value') }}", {}),
    ("{{ [1, 2] | reverse | list }} {{ 'abc' | reverse }} {{ 'abc' | list }} {{ {'a': 1} | list }}", {}),
    ("{{ '42' | int }} {{ '4.7' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 3.9 | int }} {{ '1.5' | float }} {{ true | int }}", {}),
    ("{{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ -3 | abs }} {{ 7 | round }}", {}),
    ("{{ [1, 2, 3] | sum }} {{ [{'a': 1}, {'a': 5}] | sum(attribute='a') }} {{ [3, 1] | min }} {{ ['a', 'C'] | max }}", {}),
    ("{{ '<a & \"b\">' | escape }} {{ '<' | e }} {{ ('<a>' | safe) + '<b>' }} {{ '<' + ('x' | safe) }} {{ '<' ~ ('x' | safe) }}", {}),
    ("{{ 1 | string + 'x' }} {{ none | string }} {{ [1] | string | length }} {{ '%s-%s' | format('a', 1) }}", {}),
    ("{{ 'a b  c' | wordcount }} {{ 'ab' | center(7) }}| {{ [1, 2, 3] | batch(2) | list }}", {}),
    ("{{ 'x' | nofilter }}", {}),
    ("{{ 'x' is notest }}", {}),
    # tests
    ("{{ 'a' is string }}{{ 1 is number }}{{ 1.0 is float }}{{ 1 is integer }}{{ true is integer }}{{ true is boolean }}{{ none is none }}", {}),
    ("{{ [] is sequence }}{{ {} is mapping }}{{ 'a' is iterable }}{{ 1 is iterable }}{{ 'a' is sequence }}{{ missing is iterable }}{{ range is callable }}", {}),
    ("{{ 3 is odd }}{{ 3 is even }}{{ 6 is divisibleby 3 }}{{ 1 is eq 1 }}{{ 1 is sameas 1 }}{{ 'a' is in ['a'] }}{{ 'A' is upper }}{{ 'a1' is lower }}", {}),
    ("{{ x is defined and x is not none }}{{ y is undefined }}{{ true is true }}{{ 1 is true }}{{ false is false }}", {"x": 1}),
    # methods
    ("{{ ' a '.strip() }}|{{ 'xax'.strip('x') }}|{{ ' a'.lstrip() }}|{{ 'a\n'.rstrip('\n') }}|{{ 'a,b,,c'.split(',') }}|{{ ' a  b '.split() }}", {}),
    ("{{ 'a b c'.split(' ', 1) }}{{ 'a b c'.rsplit(' ', 1) }}{{ 'a b c'.split(maxsplit=1) }}{{ 'x</think>y'.split('</think>')[-1] }}{{ ''.split(',') }}{{ ''.split() }}", {}),
    ("{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.upper() }}{{ 'ABC'.lower() }}{{ 'abc'.title() }}{{ 'abc'.capitalize() }}", {}),
    ("{{ 'aXbX'.replace('X', 'y') }}{{ 'aXbX'.replace('X', 'y', 1) }}{{ 'abcb'.find('b') }}{{ 'abcb'.rfind('b') }}{{ 'abc'.find('z') }}{{ 'ébc'.index('c') }}{{ 'aab'.count('a') }}", {}),
    ("{{ ','.join(['a', 'b']) }}{{ 'ab'.isdigit() }}{{ '12'.isdigit() }}{{ 'ab'.isalpha() }}{{ ' '.isspace() }}{{ 'AB'.isupper() }}{{ '5'.zfill(3) }}{{ '-5'.zfill(4) }}", {}),
    ("{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('c') }}{{ 'a=b=c'.partition('=') }}{{ 'a=b=c'.rpartition('=') }}{{ 'a\nb\r\nc'.splitlines() }}", {}),
    ("{{ d.get('a') }}{{ d.get('x') }}{{ d.get('x', 3) }}{{ d.keys() | list }}{{ d.values() | list }}{{ d.items() | list }}", {"d": {"a": 1, "b": None}}),
    ("{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}{{ d['items'] }}|{{ d.items is callable }}", {"d": {"items": 4}}),
    ("{{ l.append(1) }}", {"l": []}),
    ("{{ ','.join([1]) }}", {}),
    ("{{ 'a'.nomethod() }}", {}),
    ("{{ missing() }}", {}),
    # malformed
    ("{% if true %}x", {}),
    ("{{ 1 + }}", {}),
    ("{{ 'x }}", {}),
    ("{% nonsense %}", {}),
    ("{% endif %}", {}),
    ("{# x", {}),
    ("{{ (1 }}", {}),
    ("{% for x %}{% endfor %}", {}),
    ("{{ 1 1 }}", {}),
    ("}} %} {a} { {", {}),
]


def hashed(text):
    if text is None:
        return None
    data = text.encode()
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    return [len(data), f"{digest:016x}"]


def sources():
    folder = TOKENIZERS / "llama.cpp/templates"
    found = {f"llama.cpp/templates/{path.name}": path.read_text() for path in sorted(folder.glob("*.jinja"))}
    found["minimind/tokenizer_config.json"] = json.loads(
        (TOKENIZERS / "minimind/tokenizer_config.json").read_text())["chat_template"]
    return found


templates = {
    name: {title: hashed(rendered(source, {**BASE, **conversation})) for title, conversation in CONVERSATIONS.items()}
    for name, source in sources().items()
}
if len(sys.argv) > 1:  # for a person who looks for a difference: all results, as files
    for name, source in sources().items():
        for title, conversation in CONVERSATIONS.items():
            text = rendered(source, {**BASE, **conversation})
            Path(sys.argv[1], f"{Path(name).name}.{title}".replace(" ", "_")).write_text(str(text))
document = {
    "base": BASE,
    "conversations": CONVERSATIONS,
    "templates": templates,
    "cases": [[source, variables, rendered(source, {**BASE, **variables})] for source, variables in CASES],
}


def lines(values):
    return ",\n".join("  " + json.dumps(value, ensure_ascii=False) for value in values)


def fields(mapping):
    return ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in mapping.items())


print(f'{{"base": {json.dumps(BASE)},\n"conversations": {{\n{fields(CONVERSATIONS)}\n}},\n"templates": {{\n{fields(templates)}\n}},')
print(f'"cases": [\n{lines(document["cases"])}\n]}}')
