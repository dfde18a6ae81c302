"""Bodies of a POST as `application/json`.

Rows: name; body; what hooks and app read if the gate lets it through, else its status and code; which frameworks
(Starlette, FastAPI with a dict or a model, Django) read it with no gate before them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Not to a model of the body: where `user` is no text, or a key is no Unicode.
SFMD, SFD, SD, NONE = "SFMD", "SFD", "SD", ""


class Body(NamedTuple):
    name: str
    body: bytes
    verdict: dict[str, Any] | tuple[int, str]
    bare: str


INVALID = (400, "invalid_json")
DEEP = (400, "json_too_deep")
MANY = (400, "json_too_large")
TYPE = (400, "invalid_type")

HELLO = '{"user":"é","n":1}'


def nested(levels: int) -> bytes:
    """An object with containers so many levels deep, itself one of them."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def nest(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 2):
        value = [value]
    return {"a": value}


BODIES = [
    # encodings
    Body("plain", HELLO.encode(), {"user": "é", "n": 1}, SFMD),
    Body("utf-8 byte order mark", b"\xef\xbb\xbf" + HELLO.encode(), INVALID, SFMD),
    Body("utf-16 little endian", HELLO.encode("utf-16-le"), INVALID, SFMD),
    Body("utf-16 big endian", HELLO.encode("utf-16-be"), INVALID, SFMD),
    Body("utf-16 with mark", HELLO.encode("utf-16"), INVALID, SFMD),
    Body("utf-32 little endian", HELLO.encode("utf-32-le"), INVALID, SFMD),
    Body("utf-32 big endian", HELLO.encode("utf-32-be"), INVALID, SFMD),
    Body("utf-32 with mark", HELLO.encode("utf-32"), INVALID, SFMD),
    Body("utf-7", HELLO.encode("utf-7"), {"user": "+AOk", "n": 1}, SFMD),
    Body("latin-1", HELLO.encode("latin-1"), INVALID, NONE),
    Body("overlong utf-8", b'{"user":"\xc0\xaf"}', INVALID, NONE),
    Body("raw surrogate", b'{"user":"\xed\xa0\x80"}', INVALID, SFMD),
    Body("raw surrogate pair", b'{"user":"\xed\xa0\xbd\xed\xb8\x80"}', INVALID, SFMD),
    Body("code point past the last", b'{"user":"\xf4\x90\x80\x80"}', INVALID, NONE),
    Body("noncharacter", b'{"user":"\xef\xbf\xbf"}', {"user": "\uffff"}, SFMD),
    Body("cut code point", b'{"user":"\xc3', INVALID, NONE),
    # escapes
    Body("lone surrogate escape", b'{"user":"\\ud800"}', INVALID, SFMD),
    Body("lone surrogate escape in a key", b'{"\\udfff":1}', INVALID, SFD),
    Body("surrogate pair escape", b'{"user":"\\ud83d\\ude00"}', {"user": "\U0001f600"}, SFMD),
    Body("escaped key", b'{"\\u0075ser":"u"}', {"user": "u"}, SFMD),
    Body("escaped key twice", b'{"user":"good","\\u0075\\u0073er":"evil"}', {"user": "evil"}, SFMD),
    Body("escaped solidus", b'{"a\\/b":"\\/"}', {"a/b": "/"}, SFMD),
    Body("escaped NUL", b'{"user":"\\u0000"}', {"user": "\0"}, SFMD),
    Body("escaped NUL in a key", b'{"user\\u0000":"u"}', {"user\0": "u"}, SFMD),
    Body("bad escape", b'{"user":"\\x41"}', INVALID, NONE),
    Body("short escape", b'{"user":"\\u41"}', INVALID, NONE),
    Body("raw control character", b'{"user":"a\nb"}', INVALID, NONE),
    Body("raw NUL", b'{"user":"\0"}', INVALID, NONE),
    Body("raw DEL and separators", b'{"user":"\x7f\xe2\x80\xa8\xc2\x85"}', {"user": "\x7f\u2028\x85"}, SFMD),
    # keys
    Body("duplicate key", b'{"user":"good","user":"evil"}', {"user": "evil"}, SFMD),
    Body("duplicate key, nested", b'{"a":[{"b":1,"b":2}]}', {"a": [{"b": 2}]}, SFMD),
    Body("duplicate stream, the last true", b'{"stream":"x","stream":true}', {"stream": True}, SFMD),
    Body("duplicate stream, the last text", b'{"stream":true,"stream":"x"}', TYPE, SFMD),
    Body("key in other case", b'{"user":"a","USER":"b"}', {"user": "a", "USER": "b"}, SFMD),
    Body("key with a space", b'{"user ":"b"}', {"user ": "b"}, SFMD),
    Body("fullwidth key", '{"\uff55\uff53\uff45\uff52":"b"}'.encode(), {"\uff55\uff53\uff45\uff52": "b"}, SFMD),
    Body("empty key", b'{"":"b"}', {"": "b"}, SFMD),
    Body("__proto__", b'{"__proto__":{"user":"b"}}', {"__proto__": {"user": "b"}}, SFMD),
    Body(
        "the gate's own keys",
        b'{"a":1,"litellm_call_id":"x","proxy_server_request":{},"secret_fields":1}',
        {"a": 1},
        SFMD,
    ),
    Body("the gate's own key, escaped", b'{"a":1,"litellm\\u005fmetadata":{"x":1}}', {"a": 1}, SFMD),
    Body(
        "metadata with names of the gate's",
        b'{"metadata":{"user_api_key":"x","headers":{"a":"b"},"requester_metadata":1}}',
        {"metadata": {"user_api_key": "x", "headers": {"a": "b"}, "requester_metadata": 1}},
        SFMD,
    ),
    Body("metadata as text", b'{"metadata":"x"}', {"metadata": "x"}, SFMD),
    # numbers
    Body("64 bits", b'{"seed":18446744073709551615}', {"seed": 18446744073709551615}, SFMD),
    Body("-63 bits", b'{"seed":-9223372036854775808}', {"seed": -9223372036854775808}, SFMD),
    Body("65 bits", b'{"seed":18446744073709551616}', {"seed": 1.8446744073709552e19}, SFMD),
    Body("309 digits", b'{"seed":%b}' % (b"1" * 309), {"seed": 1.1111111111111112e308}, SFMD),
    Body("310 digits", b'{"seed":%b}' % (b"1" * 310), INVALID, SFMD),
    Body("5000 digits", b'{"seed":%b}' % (b"1" * 5000), INVALID, NONE),
    Body("one as a float", b'{"t":1.0}', {"t": 1.0}, SFMD),
    Body("minus zero", b'{"t":[-0,-0.0]}', {"t": [0, -0.0]}, SFMD),
    Body("long float", b'{"t":0.1000000000000000055511151231257827}', {"t": 0.1}, SFMD),
    Body("exponent", b'{"t":1E+2}', {"t": 100.0}, SFMD),
    Body("too small for a float", b'{"t":1e-999}', {"t": 0.0}, SFMD),
    Body("too large for a float", b'{"t":1e999}', INVALID, SFMD),
    Body("NaN", b'{"t":NaN}', INVALID, SFMD),
    Body("Infinity", b'{"t":Infinity}', INVALID, SFMD),
    Body("-Infinity", b'{"t":-Infinity}', INVALID, SFMD),
    Body("leading zero", b'{"t":01}', INVALID, NONE),
    Body("leading plus", b'{"t":+1}', INVALID, NONE),
    Body("hexadecimal", b'{"t":0x1}', INVALID, NONE),
    Body("leading point", b'{"t":.5}', INVALID, NONE),
    Body("trailing point", b'{"t":5.}', INVALID, NONE),
    Body("grouped digits", b'{"t":1_000}', INVALID, NONE),
    # grammar
    Body("odd but legal white space", b'\r\n\t {\n"a"\t:\r[ 1 ,2 ] } \n', {"a": [1, 2]}, SFMD),
    Body("form feed", b'{"a":1}\x0c', INVALID, NONE),
    Body("no-break space", b'{"a":\xc2\xa01}', INVALID, NONE),
    Body("trailing comma", b'{"messages":[{"role":"user"},],}', INVALID, NONE),
    Body("comment", b'{"a":1/*x*/}', INVALID, NONE),
    Body("single quotes", b"{'a':1}", INVALID, NONE),
    Body("bare key", b"{a:1}", INVALID, NONE),
    Body("capital True", b'{"stream":True}', INVALID, NONE),
    Body("two documents", b'{"a":1}{"a":2}', INVALID, NONE),
    Body("two lines of documents", b'{"a":1}\n{"a":2}', INVALID, NONE),
    Body("trailing NUL", b'{"a":1}\0', INVALID, NONE),
    Body("trailing text", b'{"a":1}x', INVALID, NONE),
    Body("cut", b'{"a":1', INVALID, NONE),
    Body("prefix against hijacking", b')]}\',\n{"a":1}', INVALID, NONE),
    Body("form", b"a=1&user=b", INVALID, NONE),
    Body("gzip without saying so", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", INVALID, NONE),
    Body("empty", b"", INVALID, NONE),
    Body("white space alone", b" \n", INVALID, NONE),
    # the top level
    Body("empty object", b"{}", {}, SFMD),
    Body("array", b'[{"user":"u"}]', INVALID, SD),
    Body("string", b'"x"', INVALID, SD),
    Body("null", b"null", INVALID, SD),
    Body("number", b"1", INVALID, SD),
    Body("true", b"true", INVALID, SD),
    # depth and number
    Body("depth 128", nested(128), nest(128), SFMD),
    Body("depth 129", nested(129), DEEP, SFMD),
    Body("depth 129 of objects", b'{"a":' * 129 + b"1" + b"}" * 129, DEEP, SFMD),
    Body("depth 255", nested(255), DEEP, SFMD),
    Body("depth 700", nested(700), DEEP, SFMD),
    Body("depth 1024", nested(1024), DEEP, NONE),
    Body("depth 1025", nested(1025), INVALID, NONE),
    Body("depth 100,000", nested(100_000), MANY, NONE),
    Body("depth 100,000, never closed", b'{"a":' + b"[" * 100_000, MANY, NONE),
    Body("brackets in text", b'{"a":"%b"}' % (b"[{" * 1000), {"a": "[{" * 1000}, SFMD),
    Body("wide, not deep", b'{"a":[%b[]]}' % (b"[]," * 500), {"a": [[]] * 501}, SFMD),
    Body("500,001 values", b'{"a":[%b0]}' % (b"0," * 500_001), MANY, SFMD),
    Body("100,000 keys", b'{"a":[%b]}' % b",".join([b'{"b":0,"c":0}'] * 50_000), MANY, SFMD),
    Body("45,000 empty arrays", b'{"a":[%b0]}' % (b"[]," * 45_000), {"a": [*[[]] * 45_000, 0]}, SFMD),
    Body("46,000 empty arrays", b'{"a":[%b0]}' % (b"[]," * 46_000), MANY, SFMD),
    Body("200,000 texts", b'{"a":[%b0]}' % (b'"x",' * 200_000), {"a": [*["x"] * 200_000, 0]}, SFMD),
    Body("300,000 texts", b'{"a":[%b0]}' % (b'"x",' * 300_000), MANY, SFMD),
    Body("300,000 tokens", b'{"input":[%b0]}' % (b"100256," * 300_000), {"input": [*[100256] * 300_000, 0]}, SFMD),
    Body("millions of empty objects", b'{"a":[%b{}]}' % (b"{}," * 1_500_000), MANY, SFMD),
    Body("499,971 numbers", b'{"a":[%b0]}' % (b"0," * 499_970), {"a": [0] * 499_971}, SFMD),
    Body("600,000 commas in text", b'{"a":"%b"}' % (b"," * 600_000), {"a": "," * 600_000}, SFMD),
    Body("600,000 escaped quotes", b'{"a":"%b"}' % (b'\\",' * 600_000), {"a": '",' * 600_000}, SFMD),
    Body("many commas, a string that never ends", b",," * 300_000 + b'"' + b'\\"' * 500_000, MANY, NONE),
    Body("9,000,000 commas in text", b'{"a":"%b"}' % (b"," * 9_000_000), {"a": "," * 9_000_000}, SFMD),
    Body("more than 10 MB", b'{"a":"%b"}' % (b"x" * 9_999_993), (413, "request_too_large"), SFMD),
    Body("10 MB", b'{"a":"%b"}' % (b"x" * 9_999_992), {"a": "x" * 9_999_992}, SFMD),
    # stream, of every type
    Body("stream true", b'{"stream":true}', {"stream": True}, SFMD),
    Body("stream false", b'{"stream":false}', {"stream": False}, SFMD),
    Body("stream null", b'{"stream":null}', {"stream": None}, SFMD),
    Body("stream as text", b'{"stream":"true"}', TYPE, SFMD),
    Body("stream as empty text", b'{"stream":""}', TYPE, SFMD),
    Body("stream 1", b'{"stream":1}', TYPE, SFMD),
    Body("stream 0", b'{"stream":0}', TYPE, SFMD),
    Body("stream 1.0", b'{"stream":1.0}', TYPE, SFMD),
    Body("stream as an array", b'{"stream":[true]}', TYPE, SFMD),
    Body("stream as an object", b'{"stream":{}}', TYPE, SFMD),
    Body("stream, escaped, as text", b'{"str\\u0065am":"yes"}', TYPE, SFMD),
    Body("stream of another name", b'{"Stream":"yes","a":{"stream":1}}', {"Stream": "yes", "a": {"stream": 1}}, SFMD),
]

VISIBLE = (400, "missing_required_parameter")

# With `enforce_user_param`, by the same columns.
USERS = [
    Body("a user", b'{"user":"u"}', {"user": "u"}, SFMD),
    Body("a user among blanks", '{"user":" \u200bu\\u0000"}'.encode(), {"user": " \u200bu\0"}, SFMD),
    Body("the digit nought", b'{"user":"0"}', {"user": "0"}, SFMD),
    Body("an emoji", '{"user":"👤"}'.encode(), {"user": "👤"}, SFMD),
    Body("no user", b'{"model":"m"}', VISIBLE, SFMD),
    Body("null", b'{"user":null}', VISIBLE, SFMD),
    Body("empty", b'{"user":""}', VISIBLE, SFMD),
    Body("spaces", b'{"user":"  \\t\\n"}', VISIBLE, SFMD),
    Body("no-break space", '{"user":"\xa0\u3000"}'.encode(), VISIBLE, SFMD),
    Body("zero-width space", '{"user":"\u200b"}'.encode(), VISIBLE, SFMD),
    Body("byte order mark", '{"user":"\ufeff"}'.encode(), VISIBLE, SFMD),
    Body("soft hyphen", '{"user":"\xad"}'.encode(), VISIBLE, SFMD),
    Body("right-to-left marks", '{"user":"\u200f\u202e"}'.encode(), VISIBLE, SFMD),
    Body("tag characters", '{"user":"\U000e0041"}'.encode(), VISIBLE, SFMD),
    Body("NUL", b'{"user":"\\u0000"}', VISIBLE, SFMD),
    Body("noncharacter", '{"user":"\uffff"}'.encode(), VISIBLE, SFMD),
    Body("unassigned", '{"user":"\u0378"}'.encode(), VISIBLE, SFMD),
    Body("blank Braille pattern", '{"user":"\u2800"}'.encode(), VISIBLE, SFMD),
    Body("Hangul fillers", '{"user":"\u115f\u1160\u3164\uffa0"}'.encode(), VISIBLE, SFMD),
    Body("0", b'{"user":0}', VISIBLE, SFD),
    Body("1", b'{"user":1}', VISIBLE, SFD),
    Body("true", b'{"user":true}', VISIBLE, SFD),
    Body("an array", b'{"user":["u"]}', VISIBLE, SFD),
    Body("an object", b'{"user":{"id":"u"}}', VISIBLE, SFD),
    Body("another case", b'{"USER":"u"}', VISIBLE, SFMD),
    Body("a key with a space", b'{"user ":"u"}', VISIBLE, SFMD),
    Body("a fullwidth key", '{"\uff55\uff53\uff45\uff52":"u"}'.encode(), VISIBLE, SFMD),
    Body("nested", b'{"metadata":{"user":"u"}}', VISIBLE, SFMD),
    Body("in a message", b'{"messages":[{"role":"user","user":"u"}]}', VISIBLE, SFMD),
    Body("the last of two is empty", b'{"user":"u","user":""}', VISIBLE, SFMD),
    Body("the last of two, escaped, is empty", b'{"user":"u","\\u0075ser":""}', VISIBLE, SFMD),
    Body("the last of two is a user", b'{"user":"","user":"u"}', {"user": "u"}, SFMD),
]
