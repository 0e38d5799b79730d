"""Mutations without coverage: what repeats is the whole of a case, by its seed and number."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Sequence

__all__ = ["mutated"]

_NUMBERS = (
    0, 1, 2, -1, -2, 7, 8, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535,
    65536, 10**6, 2**24, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1,
    -(2**63),
)  # fmt: skip
_TEXTS = (
    b"1e999", b"-0", b"NaN", b"nan", b"inf", b"-inf", b"0x10", b"1_000", b"9" * 30, b"9" * 5000,
    b"null", b"true", b"''", b'""', b"[]", b"{}", b"../x", b"/etc/passwd", b"\\", b"\x00", b"\xff",
    b"\xed\xa0\x80", b"\\ud800", b"\xf0\x9f\x98\x80", b"\x1b[31m", b"\r", b"\n", b"\t", b"%00", b"*", b"&a",
)  # fmt: skip
_DIGITS = re.compile(rb"\d+")
_FORMS = ("<b", "<h", "<i", "<q", ">h", ">i", ">q")


def mutated(
    seeds: Sequence[bytes], words: Sequence[bytes], largest: int, rng: random.Random
) -> bytes:
    """Return an input near one of the seeds, after one to eight changes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(min(rng.randint(1, 8), rng.randint(1, 8))):
        change = rng.choice(_CHANGES)
        change(data, seeds, words, rng)
        del data[largest:]
    return bytes(data)


def _at(data: bytearray, rng: random.Random) -> int:
    """Return a place, more often near the beginning, where headers are."""
    if rng.random() < 0.4:
        return rng.randrange(min(len(data), 256) + 1)
    return rng.randrange(len(data) + 1)


def _span(data: bytearray, rng: random.Random) -> slice:
    start = _at(data, rng)
    length = rng.choice((1, 2, 4, 8, 16, 64, 256, max(1, len(data) // 4)))
    return slice(start, min(len(data), start + rng.randint(1, length)))


def _bit(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    if data:
        data[min(_at(data, rng), len(data) - 1)] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    if data:
        data[min(_at(data, rng), len(data) - 1)] = rng.choice(
            (0, 1, 127, 128, 255, rng.randrange(256))
        )


def _number(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    """Change a number as headers hold them."""
    form = rng.choice(_FORMS)
    width = struct.calcsize(form)
    if len(data) < width:
        return
    at = min(_at(data, rng), len(data) - width)
    if rng.random() < 0.5:
        at -= at % min(width, 4)
    bits = 8 * width
    if rng.random() < 0.3:
        value = int.from_bytes(data[at : at + width], "little") + rng.randint(-3, 3)
    else:
        value = rng.choice((*_NUMBERS, len(data), len(data) + 1, len(data) - 1))
    value &= (1 << bits) - 1
    data[at : at + width] = value.to_bytes(width, "little" if form[0] == "<" else "big")


def _real(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    """Change a floating-point number."""
    form = rng.choice(("<f", "<d"))
    width = struct.calcsize(form)
    if len(data) < width:
        return
    at = min(_at(data, rng), len(data) - width)
    at -= at % 4
    number = rng.choice((0.0, -0.0, 1e30, -1e30, float("inf"), float("nan"), 1e-40, -1.0, 0.5))
    data[at : at + width] = struct.pack(form, number)


def _written(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    """Change a number that is written in digits."""
    found = list(_DIGITS.finditer(bytes(data[: 1 << 14])))
    if found:
        one = rng.choice(found)
        text = rng.choice((*(str(n).encode() for n in _NUMBERS), *_TEXTS, b"1.5", b"1e5"))
        data[one.start() : one.end()] = text


def _cut(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    del data[_at(data, rng) :]


def _drop(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    del data[_span(data, rng)]


def _twice(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    span = _span(data, rng)
    times = rng.choice((1, 1, 1, 2, 10, 300))
    data[span.start : span.start] = bytes(data[span]) * times


def _move(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    span = _span(data, rng)
    part = bytes(data[span])
    del data[span]
    at = _at(data, rng)
    data[at:at] = part


def _noise(data: bytearray, seeds: object, words: object, rng: random.Random) -> None:
    span = _span(data, rng)
    data[span] = rng.randbytes(span.stop - span.start)


def _word(data: bytearray, seeds: object, words: Sequence[bytes], rng: random.Random) -> None:
    """Put a word in, or over what is there."""
    word = rng.choice((*words, *words, *_TEXTS) if words else _TEXTS)
    at = _at(data, rng)
    data[at : at + (len(word) if rng.random() < 0.5 else 0)] = word


def _splice(data: bytearray, seeds: Sequence[bytes], words: object, rng: random.Random) -> None:
    other = bytearray(rng.choice(seeds))
    part = bytes(other[_span(other, rng)])
    at = _at(data, rng)
    data[at : at + (len(part) if rng.random() < 0.5 else 0)] = part


_CHANGES = (
    _bit, _byte, _number, _number, _real, _written, _cut, _drop, _twice, _move, _noise, _word, _word,
    _splice,
)  # fmt: skip
