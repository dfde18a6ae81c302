"""Forms, and what the gate makes of them.

Rows: name; body; the parts that hooks and app read if the gate lets it through, in order, else the status and words of
the message; the content type.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.multipart import TYPE, File, fields, form, part

Parts = list[tuple[str, "str | File"]]


class Form(NamedTuple):
    name: str
    body: bytes
    verdict: Parts | tuple[int, str]
    content_type: str = TYPE


def bad(words: str) -> tuple[int, str]:
    return 400, words


OK = fields(model="m")
MODEL: Parts = [("model", "m")]
WAV = part('name="file"; filename="a.wav"\r\nContent-Type: audio/wav', b"RIFF\r\n--\r\n--x\0\xff")
WAV_PART = ("file", File("a.wav", "audio/wav", b"RIFF\r\n--\r\n--x\0\xff"))


def typed(parameters: str) -> str:
    return "multipart/form-data" + parameters


def named(name: str) -> bytes:
    return form(part(name, "x"))


def file_named(raw: str | bytes) -> bytes:
    raw = raw.encode() if isinstance(raw, str) else raw
    return form(part(b'name="f"; filename="%b"' % raw, "x"))


def a_file(filename: str) -> Parts:
    return [("f", File(filename, None, b"x"))]


FORMS = [
    # innocent
    Form("a field", OK, MODEL),
    Form("a field and a file", form(part('name="model"', "m"), WAV), [*MODEL, WAV_PART]),
    Form("a file before a field", form(WAV, part('name="model"', "m")), [WAV_PART, *MODEL]),
    Form("an empty form", b"--b--\r\n", []),
    Form("an empty field", fields(prompt=""), [("prompt", "")]),
    Form("an empty file", form(part('name="f"; filename="e"')), [("f", File("e", None, b""))]),
    Form("no line end at the end", OK[:-2], MODEL),
    Form("an empty line at the end", OK + b"\r\n", MODEL),
    Form("UTF-8", fields(prompt="é\u2028🦊\r\n\tx"), [("prompt", "é\u2028🦊\r\n\tx")]),
    Form("NUL in a field", fields(prompt="a\0b"), [("prompt", "a\0b")]),
    Form("a boundary of another form", fields(prompt="--c--\r\n--c"), [("prompt", "--c--\r\n--c")]),
    Form("half a boundary", fields(prompt="\r\n--"), [("prompt", "\r\n--")]),
    Form("a longer boundary", fields(prompt="\r\n--bx\r\n"), [("prompt", "\r\n--bx\r\n")]),
    Form("a list", form(*(part('name="k[]"', x) for x in "ab")), [("k[]", "a"), ("k[]", "b")]),
    Form("a list of one", form(part('name="k[]"', "a")), [("k[]", "a")]),
    Form("a repeated field", form(*(part('name="k"', x) for x in "aba")), [("k", "a"), ("k", "b"), ("k", "a")]),
    Form(
        "repeated fields between others",
        form(part('name="k"', "1"), part('name="l"', "2"), part('name="k"', "3")),
        [("k", "1"), ("l", "2"), ("k", "3")],
    ),
    Form("repeated files", form(WAV, WAV), [WAV_PART, WAV_PART]),
    Form("a file and a field of one name", form(WAV, part('name="file"', "x")), [WAV_PART, ("file", "x")]),
    Form("brackets alone", form(part('name="[]"', "x")), [("[]", "x")]),
    Form("a name with a key", form(part('name="chunking[type]"', "x")), [("chunking[type]", "x")]),
    Form("a name in capitals", form(part('name="MODEL"', "x")), [("MODEL", "x")]),
    Form("an unquoted name", form(part("name=k", "x")), [("k", "x")]),
    Form("a name with a semicolon", form(part('name="a;b=c"', "x")), [("a;b=c", "x")]),
    Form("a name in UTF-8", form(part('name="é"', "x")), [("é", "x")]),
    Form("parameters in capitals", form(part('NAME="k"', "x")), [("k", "x")]),
    Form("spaces between parameters", form(part('name="k" ;\tfilename="f" ', "x")), [("k", File("f", None, b"x"))]),
    Form("parameters in the other order", form(part('filename="f"; name="k"', "x")), [("k", File("f", None, b"x"))]),
    Form("a filename in UTF-8", file_named("ü 🦊.wav"), a_file("ü 🦊.wav")),
    Form("an escaped quote as browsers write it", file_named("a%22b"), a_file("a%22b")),
    Form("an escaped quote as curl writes it", file_named('a\\"b'), a_file("a%22b")),
    Form("a filename with a semicolon", file_named('a"; name="x'.replace('"', "%22")), a_file("a%22; name=%22x")),
    Form(
        "what clients of Ruby send",
        form(
            part(
                'name="f"; filename="a.mp3"\r\nContent-Length: 1\r\nContent-Type: \r\n'
                "Content-Transfer-Encoding: binary",
                "x",
            )
        ),
        a_file("a.mp3"),
    ),
    Form("a header of no account", form(part('name="k"\r\nX-Y: z\r\nMIME-Version: 1.0', "x")), [("k", "x")]),
    Form("a coding of 8 bits", form(part('name="k"\r\nContent-Transfer-Encoding: 8BIT', "x")), [("k", "x")]),
    Form("a field with a type", form(part('name="k"\r\nContent-Type: text/plain; charset=UTF-8', "x")), [("k", "x")]),
    Form("a field of JSON", form(part('name="k"\r\nContent-Type: application/json', "{}")), [("k", "{}")]),
    Form(
        "a type with parameters",
        form(part('name="f"; filename="f"\r\nContent-Type: a/b; c="d e"', "x")),
        [("f", File("f", 'a/b; c="d e"', b"x"))],
    ),
    Form("stream true", fields(stream="true"), [("stream", "true")]),
    Form("stream false", fields(stream="false"), [("stream", "false")]),
    Form(
        "padding behind a boundary",
        OK.replace(b"--b--", b"--b \t\r\nContent-Disposition: form-data; name=k\r\n\r\nx\r\n--b--"),
        [*MODEL, ("k", "x")],
    ),
    # the content type
    Form("capitals", OK, MODEL, "MULTIPART/Form-Data; BOUNDARY=b"),
    Form("a quoted boundary", OK, MODEL, typed('; boundary="b"')),
    Form("no space", OK, MODEL, typed(";boundary=b")),
    Form("a charset", OK, MODEL, typed("; boundary=b; charset=UTF-8")),
    Form("a boundary of Java", OK.replace(b"--b", b"------=_Part_1.2"), MODEL, typed("; boundary=----=_Part_1.2")),
    Form("70 characters", OK.replace(b"--b", b"--" + b"b" * 70), MODEL, typed("; boundary=" + "b" * 70)),
    Form(
        "71 characters",
        OK.replace(b"--b", b"--" + b"b" * 71),
        bad("no valid boundary"),
        typed("; boundary=" + "b" * 71),
    ),
    Form("no boundary", OK, bad("no valid boundary"), typed("")),
    Form("an empty boundary", OK, bad("no valid boundary"), typed('; boundary=""')),
    Form("a boundary that ends with a space", OK, bad("no valid boundary"), typed('; boundary="b "')),
    Form("a boundary with an odd character", OK, bad("no valid boundary"), typed('; boundary="b@"')),
    Form("two boundaries", OK, bad("two parameters 'boundary'"), typed("; boundary=b; boundary=c")),
    Form("the same boundary twice", OK, bad("two parameters 'boundary'"), typed("; boundary=b; Boundary=b")),
    Form("an extended boundary", OK, bad("extended parameter 'boundary*'"), typed("; boundary*=utf-8''b")),
    Form("a continued boundary", OK, bad("extended parameter 'boundary*0'"), typed("; boundary*0=b")),
    Form("another parameter", OK, bad("a parameter 'x'"), typed("; boundary=b; x=y")),
    Form("another charset", OK, bad("charset must be utf-8"), typed("; boundary=b; charset=utf-16")),
    Form("a comma", OK, bad("malformed"), typed("; boundary=b, text/plain")),
    Form("a parameter without a value", OK, bad("malformed"), typed("; boundary")),
    Form("a quote that never ends", OK, bad("malformed"), typed('; boundary="b')),
    Form("other parts of a multipart", OK, (415, "multipart/form-data"), "multipart/mixed; boundary=b"),
    Form("JSON", b'{"model":"m"}', (415, "multipart/form-data"), "application/json"),
    Form("a form of the other kind", b"model=m", (415, "multipart/form-data"), "application/x-www-form-urlencoded"),
    Form("no content type", OK, (415, "multipart/form-data"), ""),
    # the frame
    Form("nothing", b"", bad("ends before")),
    Form("another boundary", OK.replace(b"--b", b"--c"), bad("does not begin")),
    Form("something before", b"junk\r\n" + OK, bad("does not begin")),
    Form("a line end before", b"\r\n" + OK, bad("does not begin")),
    Form("a form before, of another boundary", OK.replace(b"--b", b"--c") + OK, bad("does not begin")),
    Form("lines that end with LF", OK.replace(b"\r\n", b"\n"), bad("CRLF")),
    Form("one line of the frame that ends with LF", OK.replace(b"--b\r\n", b"--b\n", 1), bad("CRLF")),
    Form("one header that ends with LF", OK.replace(b'model"\r\n', b'model"\n'), bad("CRLF")),
    Form("headers that end with LF", OK.replace(b'model"\r\n\r\n', b'model"\n\n'), bad("CRLF")),
    Form("CR alone", OK.replace(b"\r\n", b"\r"), bad("malformed")),
    Form("no end", OK.removesuffix(b"--b--\r\n"), bad("ends before")),
    Form("half an end", OK.removesuffix(b"--\r\n"), bad("ends before")),
    Form("an end of one hyphen", OK.removesuffix(b"-\r\n"), bad("ends before")),
    Form("the boundary alone", b"--b", bad("ends before")),
    Form("cut in a header", OK[:20], bad("ends before")),
    Form("a second form behind", OK + OK, bad("follows")),
    Form("text behind", OK + b"x", bad("follows")),
    Form("two empty lines behind", OK + b"\r\n\r\n", bad("follows")),
    Form("half an empty line behind", OK + b"\r", bad("follows")),
    Form("LF behind", OK[:-2] + b"\n", bad("follows")),
    Form("half a line end behind", OK[:-1], bad("follows")),
    Form("spaces behind", OK[:-2] + b"  \r\n", bad("follows")),
    Form("an end that looks like a header", b"--b\r\n--b--: x\r\n" + OK[5:], bad("hyphen")),
    # the headers of parts
    Form("no header", b"--b\r\n\r\nx\r\n--b--\r\n", bad("no Content-Disposition")),
    Form("a type alone", b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n", bad("no Content-Disposition")),
    Form("no name", named("x=y"), bad("a parameter 'x'")),
    Form("no parameter", form(part("", "x").replace(b"; ", b"")), bad("no valid name")),
    Form("an empty name", named('name=""'), bad("no valid name")),
    Form("a backslash in a name", named('name="a\\b"'), bad("no valid name")),
    Form("an escaped quote in a name", named('name="a\\\\b"'), bad("no valid name")),
    Form("two names", named('name="model"; name="user"'), bad("two parameters 'name'")),
    Form("two names in other cases", named('name="model"; Name="user"'), bad("two parameters 'name'")),
    Form("an extended name", named("name*=utf-8''user"), bad("extended parameter 'name*'")),
    Form("an extended name too", named("name=\"model\"; name*=utf-8''user"), bad("extended parameter 'name*'")),
    Form("a continued name", named('name*0="us"; name*1="er"'), bad("extended parameter 'name*0'")),
    Form("an extended filename", named("name=\"f\"; filename*=utf-8''x"), bad("extended parameter 'filename*'")),
    Form("two filenames", named('name="f"; filename="a"; filename="b"'), bad("two parameters 'filename'")),
    Form("an empty filename", named('name="f"; filename=""'), bad("empty filename")),
    Form("a space before the equals sign", named('name ="f"'), bad("malformed")),
    Form("a quote inside", named('name="a"b"'), bad("malformed")),
    Form("a quote that an escape closes", file_named("a\\"), bad("malformed")),
    Form("a name behind an escaped quote", named('name="f"; filename="a\\"; name="b"'), bad("malformed")),
    Form("no equals sign", named("name"), bad("malformed")),
    Form("a semicolon at the end", named('name="f";'), bad("malformed")),
    Form("a name that Django strips", named('name=" user"'), bad("no valid name")),
    Form("a name that Django strips at its end", named('name="user\u00a0"'), bad("no valid name")),
    Form("an attachment", OK.replace(b"form-data;", b"attachment;"), bad("disposition 'attachment'")),
    Form("an empty disposition", OK.replace(b"form-data;", b";"), bad("disposition ''")),
    Form("a folded header", OK.replace(b"; name", b";\r\n name"), bad("malformed")),
    Form("two dispositions", named('name="a"\r\nContent-Disposition: form-data; name="b"'), bad("two headers")),
    Form("two types", named('name="a"\r\nContent-Type: a/b\r\ncontent-type: a/b'), bad("two headers")),
    Form("base64", named('name="a"\r\nContent-Transfer-Encoding: base64'), bad("Content-Transfer-Encoding")),
    Form("quoted-printable", named('name="a"\r\nContent-Transfer-Encoding: Quoted-Printable'), bad("Transfer")),
    Form("a form in a form", named('name="a"\r\nContent-Type: multipart/mixed; boundary=c'), bad("multipart body")),
    Form("a file of parts", named('name="a"; filename="f"\r\nContent-Type: Multipart/x'), bad("multipart body")),
    Form("a field in UTF-16", named('name="a"\r\nContent-Type: text/plain; charset=utf-16'), bad("not in utf-8")),
    Form("a field in UTF-7", named("name=\"a\"\r\nContent-Type: text/plain; charset*=''utf-7"), bad("not in utf-8")),
    Form("a type that is none", named('name="a"\r\nContent-Type: té/x'), bad("invalid Content-Type")),
    Form("a tab in a type", named('name="a"\r\nContent-Type: a/b;\tc=d'), bad("invalid Content-Type")),
    Form("a header in latin-1", form(part(b'name="\xe9"', "x")), bad("not UTF-8")),
    Form("a control character in a header", form(part('name="a\0"', "x")), bad("control character")),
    Form("a header without a colon", OK.replace(b"Content-Disposition:", b"Content-Disposition"), bad("malformed")),
    Form("a header with a space in its name", OK.replace(b"Disposition:", b"Disposition :"), bad("malformed")),
    Form("a header of 9,000 bytes", named(f'name="{"a" * 9_000}"'), bad("malformed")),
    Form(
        "headers of 9,000 bytes", named('name="a"' + "".join(f"\r\nX{n}: {'a' * 3_000}" for n in range(3))), bad("8192")
    ),
    Form("twenty headers", named('name="a"' + "".join(f"\r\nX{n}: y" for n in range(20))), bad("malformed")),
    # fields
    Form("a field that is not UTF-8", form(part('name="a"', b"\xff")), bad("'a' is not UTF-8")),
    Form("a field of bytes", form(part('name="a"\r\nContent-Type: x/y', b"\xff")), bad("'a' is not UTF-8")),
    *(
        Form(f"{name} twice", form(*[part(f'name="{name}"', "true")] * 2), bad(f"one field '{name}'"))
        for name in ("model", "user", "purpose", "stream", "response_format")
    ),
    Form("model as a list", form(part('name="model[]"', "m")), bad("one field 'model'")),
    Form("model with a key", form(part('name="model[x]"', "m")), bad("one field 'model'")),
    Form("model as a file", form(part('name="model"; filename="f"', "m")), bad("'model' is a file")),
    Form("model, and model as a file", form(part('name="model"', "m"), part('name="model"; filename="f"')), bad("one")),
    Form("stream as a file", form(part('name="stream"; filename="f"', "true")), bad("'stream' is a file")),
    Form("a field and a list", form(part('name="k"', "1"), part('name="k[]"', "2")), bad("both 'k' and 'k[]'")),
    Form("a list and a field", form(part('name="k[]"', "1"), part('name="k"', "2")), bad("both 'k' and 'k[]'")),
    Form("stream 1", fields(stream="1"), bad("'stream'")),
    Form("stream True", fields(stream="True"), bad("'stream'")),
    Form("an empty stream", fields(stream=""), bad("'stream'")),
    Form("stream and a space", fields(stream="true "), bad("'stream'")),
    # how much
    Form("1,000 parts", form(*[part('name="k"', "x")] * 1_000), [("k", "x")] * 1_000),
    Form("1,001 parts", form(*[part('name="k"', "x")] * 1_001), bad("1000 parts")),
    Form("50 files", form(*[WAV] * 50), [WAV_PART] * 50),
    Form("51 files", form(*[WAV] * 51), bad("50 files")),
]

# Of these, Starlette and Django read different things with no gate before them.
DISAGREED = [
    *("an extended boundary", "something before", "a form before, of another boundary", "lines that end with LF"),
    *("one line of the frame that ends with LF", "no end", "half an end", "a second form behind", "an extended name"),
    *("an extended name too", "a continued name", "an extended filename", "an empty filename"),
    *("a quote that an escape closes", "a header in latin-1", "a field that is not UTF-8", "twenty headers"),
]
