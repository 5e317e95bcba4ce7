"""Hostile encodings of `test-point/1`, a record of an integer and an optional integer, by what is wrong with them."""

from __future__ import annotations

import struct


def point(*entries: bytes, schema: bytes = b"\x6ctest-point/1", head: bytes = b"\x83") -> bytes:
    """A point put together by hand."""
    return head + schema + b"".join(entries)


ONE, NULL = b"\x01", b"\xf6"
NOT_CANONICAL = {
    "integer in two bytes": point(b"\x18\x01", NULL),
    "integer in three bytes": point(b"\x19\x00\xff", NULL),
    "integer in five bytes": point(b"\x1a\x00\x00\xff\xff", NULL),
    "integer in nine bytes": point(b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", NULL),
    "negative in two bytes": point(b"\x38\x17", NULL),
    "list head in two bytes": point(ONE, NULL, head=b"\x98\x03"),
    "list head in five bytes": point(ONE, NULL, head=b"\x9a\x00\x00\x00\x03"),
    "text head in two bytes": point(ONE, NULL, schema=b"\x78\x0ctest-point/1"),
}
MALFORMED = {
    "nothing": b"",
    "one byte more": point(ONE, NULL) + b"\x00",
    "another value more": point(ONE, NULL) * 2,
    "indefinite list": b"\x9f\x6ctest-point/1\x01\xf6\xff",
    "indefinite text": point(ONE, NULL, schema=b"\x7f\x6ctest-point/1\xff"),
    "indefinite bytes": point(b"\x5f\x41a\xff", NULL),
    "break": b"\xff",
    "reserved heads": point(b"\x1c", NULL),
    "map": point(b"\xa1\x01\x01", NULL),
    "empty map": b"\xa0",
    "tag": point(b"\xc1\x01", NULL),
    "big number tag": point(b"\xc2\x41\x01", NULL),
    "string reference": b"\xd9\x01\x00" + point(ONE, NULL),
    "shared value": b"\xd8\x1c" + point(ONE, NULL),
    "float 16": point(b"\xf9\x3c\x00", NULL),
    "float 16 that looks like false": point(b"\xf9\x00\x14", NULL),
    "float 16 that looks like null": point(ONE, b"\xf9\x00\x16"),
    "float 32": point(b"\xfa" + struct.pack(">f", 1), NULL),
    "float 64": point(b"\xfb" + struct.pack(">d", 1), NULL),
    "not a number": point(b"\xf9\x7e\x00", NULL),
    "undefined": point(ONE, b"\xf7"),
    "simple value": point(ONE, b"\xe0"),
    "null in two bytes": point(ONE, b"\xf8\x16"),
    "simple value in two bytes": point(ONE, b"\xf8\xff"),
    "list longer than the bytes": b"\x9a\xff\xff\xff\xff" + point(ONE, NULL)[1:],
    "list of 2^64 entries": b"\x9b" + b"\xff" * 8,
    "bytes longer than the bytes": point(b"\x5b" + b"\x7f" * 8, NULL),
    "text longer than the bytes": b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
    "text that is not UTF-8": point(ONE, NULL, schema=b"\x6c\xff\xfest-point/1"),
    "text with half a surrogate": point(ONE, NULL, schema=b"\x63\xed\xa0\x80"),
}
WRONG_TYPE = {
    "not a list": ONE,
    "null": NULL,
    "empty list": b"\x80",
    "no schema": b"\x82\x01\x02",
    "another schema": point(ONE, NULL, schema=b"\x6ctest-point/2"),
    "schema as bytes": point(ONE, NULL, schema=b"\x4ctest-point/1"),
    "too few fields": point(ONE, head=b"\x82"),
    "too many fields": point(ONE, NULL, NULL, head=b"\x84"),
    "bool for int": point(b"\xf5", NULL),
    "text for int": point(b"\x611", NULL),
    "bytes for int": point(b"\x411", NULL),
    "null for int": point(NULL, NULL),
    "list for int": point(b"\x80", NULL),
    "bool for an optional int": point(ONE, b"\xf4"),
}
