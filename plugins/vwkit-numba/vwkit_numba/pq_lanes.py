"""The inner loop of product quantization: 32 rows against all codewords of a slice, in whole numbers.

Sixteen rows lie side by side in the lanes of a vector, so that the nearest codeword needs no sum
across lanes. A lane holds two int16 or four bytes of a row, and one instruction multiplies and adds
them all, where the processor has it; elsewhere the same sums are put together from simpler ones.
Sums of whole numbers are exact: the result is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from vwkit_numba.lanes import _address, _declared, _load, _store, intrinsic

__all__ = ["GROUP", "TILE", "nearest_bytes", "nearest_pairs", "rounded", "side_by_side"]

_LANES = 16
_VECTORS = 2
#: Rows that are compared at once.
GROUP = _VECTORS * _LANES
#: Codewords that are compared at once: their number must be a multiple.
TILE = 8

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_V = ir.VectorType(_I32, _LANES)
_PAIRS = ir.VectorType(ir.IntType(16), 2 * _LANES)
_QUADS = ir.VectorType(ir.IntType(8), 4 * _LANES)
_FARTHEST = (1 << 31) - 1

_Dot = Callable[[Any, Any, Any, Any], Any]


def _every(number: int, kind: Any = _V) -> Any:
    return ir.Constant(kind, [number] * kind.count)


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [one.type for one in arguments])
    return builder.call(_declared(builder.module, kind, name), arguments)


def _splat(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_V, ir.Undefined)
    one = builder.insert_element(nothing, number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, nothing, _every(0))


# One step: what two or four numbers of each row and of a codeword add to the sums ---------------


def _dot_pairs(features: str) -> _Dot:
    def fused(builder: Any, total: Any, row: Any, word: Any) -> Any:
        a, b = builder.bitcast(row, _PAIRS), builder.bitcast(word, _PAIRS)
        return _call(builder, "llvm.x86.avx512.vpdpwssd.512", _V, total, a, b)

    def wide(builder: Any, total: Any, row: Any, word: Any) -> Any:
        a, b = builder.bitcast(row, _PAIRS), builder.bitcast(word, _PAIRS)
        return builder.add(total, _call(builder, "llvm.x86.avx512.pmaddw.d.512", _V, a, b))

    def halves(builder: Any, total: Any, row: Any, word: Any) -> Any:
        half, short = ir.VectorType(_I32, 8), ir.VectorType(ir.IntType(16), 16)
        parts = []
        for first in (0, 8):
            lanes = ir.Constant(half, list(range(first, first + 8)))
            a, b = (builder.shuffle_vector(one, one, lanes) for one in (row, word))
            a, b = builder.bitcast(a, short), builder.bitcast(b, short)
            parts.append(_call(builder, "llvm.x86.avx2.pmadd.wd", half, a, b))
        whole = builder.shuffle_vector(*parts, ir.Constant(_V, list(range(_LANES))))
        return builder.add(total, whole)

    def plain(builder: Any, total: Any, row: Any, word: Any) -> Any:
        bits = _every(16)
        low = [builder.ashr(builder.shl(one, bits), bits) for one in (row, word)]
        high = [builder.ashr(one, bits) for one in (row, word)]
        return builder.add(total, builder.add(builder.mul(*low), builder.mul(*high)))

    for feature, dot in (("+avx512vnni", fused), ("+avx512bw", wide), ("+avx2", halves)):
        if feature in features.split(","):
            return dot
    return plain


def _dot_bytes(features: str) -> _Dot:
    pairs = _dot_pairs(features)

    def fused(builder: Any, total: Any, row: Any, word: Any) -> Any:
        a, b = builder.bitcast(row, _QUADS), builder.bitcast(word, _QUADS)
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _V, total, a, b)

    def split(builder: Any, total: Any, row: Any, word: Any) -> Any:
        # Bytes 0 and 2, then 1 and 3: unsigned ones of the row, signed ones of the codeword.
        bits, low = _every(8, _PAIRS), _every(0x00FF00FF)
        word = builder.bitcast(word, _PAIRS)
        even = builder.bitcast(builder.ashr(builder.shl(word, bits), bits), _V)
        odd = builder.bitcast(builder.ashr(word, bits), _V)
        total = pairs(builder, total, builder.and_(row, low), even)
        return pairs(builder, total, builder.and_(builder.lshr(row, _every(8)), low), odd)

    return fused if "+avx512vnni" in features.split(",") else split


# The search ------------------------------------------------------------------------------------


def _search(choose: Callable[[str], _Dot], runner_up: bool) -> Callable[..., Any]:
    """Return the code generator of a search with one kind of products."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dot = choose(str(context.codegen().magic_tuple()[-1]))
        steps, count = arguments[1], arguments[4]
        rows, words, start, out = (
            _address(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 3, 5)
        )

        def whole(number: int) -> Any:
            return ir.Constant(_I64, number)

        entry = builder.block
        body = builder.append_basic_block("words")
        builder.branch(body)
        builder.position_at_end(body)
        at = builder.phi(_I64)
        at.add_incoming(whole(0), entry)
        held = [[builder.phi(_V) for _ in range(3)] for _ in range(_VECTORS)]
        for state in held:
            for phi, value in zip(state, (_FARTHEST, _FARTHEST, 0), strict=True):
                phi.add_incoming(_every(value), entry)
        step = builder.mul(steps, whole(4))
        listed = [builder.add(words, builder.mul(at, step))]
        for _ in range(TILE - 1):
            listed.append(builder.add(listed[-1], step))
        first = builder.add(start, builder.mul(at, whole(4)))
        sums = [
            _splat(builder, _load(builder, builder.add(first, whole(4 * c)), _I32, 4))
            for c in range(TILE)
        ]
        scores = _tile(builder, dot, rows, steps, listed, sums)

        number = _splat(builder, builder.trunc(at, _I32))
        found = []
        for (best, second, where), line in zip(held, scores, strict=True):
            for c, score in enumerate(line):
                nearer = builder.icmp_signed("<", score, best)
                if runner_up:
                    higher = builder.select(nearer, best, score)
                    lower = builder.icmp_signed("<", higher, second)
                    second = builder.select(lower, higher, second)
                where = builder.select(nearer, builder.add(number, _every(c)), where)
                best = builder.select(nearer, score, best)
            found.append((best, second, where))
        following, end = builder.add(at, whole(TILE)), builder.block
        at.add_incoming(following, end)
        for state, values in zip(held, found, strict=True):
            for phi, value in zip(state, values, strict=True):
                phi.add_incoming(value, end)
        done = builder.append_basic_block("words.done")
        builder.cbranch(builder.icmp_signed("<", following, count), body, done)
        builder.position_at_end(done)
        for v, values in enumerate(found):
            for i, value in enumerate(values):
                _store(builder, value, builder.add(out, whole(64 * (v + _VECTORS * i))))
        return context.get_dummy_value()

    return codegen


def _tile(builder: Any, dot: _Dot, rows: Any, steps: Any, listed: Any, sums: Any) -> Any:
    """Return the scores of the rows and eight codewords: `sums`, and the products added to them."""
    before = builder.block
    body = builder.append_basic_block("dims")
    done = builder.append_basic_block("dims.done")
    builder.branch(body)
    builder.position_at_end(body)
    at = builder.phi(_I64)
    at.add_incoming(ir.Constant(_I64, 0), before)
    held = [[builder.phi(_V) for _ in range(TILE)] for _ in range(_VECTORS)]
    place = builder.add(rows, builder.mul(at, ir.Constant(_I64, 4 * GROUP)))
    lines = [
        _load(builder, builder.add(place, ir.Constant(_I64, 64 * v)), _V, 4)
        for v in range(_VECTORS)
    ]
    offset = builder.mul(at, ir.Constant(_I64, 4))
    scores: list[list[Any]] = [[] for _ in range(_VECTORS)]
    for c, word in enumerate(listed):
        part = _splat(builder, _load(builder, builder.add(word, offset), _I32, 4))
        for v in range(_VECTORS):
            scores[v].append(dot(builder, held[v][c], lines[v], part))
    following = builder.add(at, ir.Constant(_I64, 1))
    at.add_incoming(following, body)
    for v in range(_VECTORS):
        for c in range(TILE):
            held[v][c].add_incoming(sums[c], before)
            held[v][c].add_incoming(scores[v][c], body)
    builder.cbranch(builder.icmp_signed("<", following, steps), body, done)
    builder.position_at_end(done)
    return scores


@intrinsic
def nearest_pairs(
    typingctx: Any, rows: Any, steps: Any, words: Any, start: Any, count: Any, out: Any
) -> Any:
    """Find the nearest codeword of 32 rows, the lowest on ties, and how near the next one is.

    Parameters
    ----------
    rows : (steps, 32) int32
        Two int16 of each row in each step.
    words : (count, steps) int32
        Two int16 of each codeword, with the opposite sign; `count` is a multiple of eight.
    start : (count,) int32
        The score of a codeword is this and its products with the row, all added up.
    out : (96,) int32
        Written: the smallest scores, the next ones, and the codewords of the smallest.
    """
    signature = types.void(rows, types.int64, words, start, types.int64, out)
    return signature, _search(_dot_pairs, runner_up=True)


@intrinsic
def nearest_bytes(
    typingctx: Any, rows: Any, steps: Any, words: Any, start: Any, count: Any, out: Any
) -> Any:
    """Find the nearest codeword as `nearest_pairs` does, without the next one.

    In each step there are four uint8 of each row, and four int8 of each codeword.
    """
    signature = types.void(rows, types.int64, words, start, types.int64, out)
    return signature, _search(_dot_bytes, runner_up=False)


# Rows side by side -----------------------------------------------------------------------------

_QUARTER = ir.VectorType(_I32, 4)
_F = ir.VectorType(ir.FloatType(), _LANES)


def _rows_of(context: Any, builder: Any, kind: Any, array: Any, first: Any, column: Any) -> Any:
    """Return where to begin in the first of some rows, and how far it is to the next one."""
    held = context.make_array(kind)(context, builder, array)
    strides = held.strides
    begin = builder.add(
        builder.ptrtoint(held.data, _I64),
        builder.add(
            builder.mul(first, builder.extract_value(strides, 0)),
            builder.mul(column, builder.extract_value(strides, 1)),
        ),
    )
    return begin, builder.extract_value(strides, 0)


def _turned(builder: Any, lines: list[Any]) -> list[Any]:
    """Return four vectors of sixteen numbers from sixteen of four."""

    def joined(a: Any, b: Any) -> Any:
        count = 2 * a.type.count
        lanes = ir.Constant(ir.VectorType(_I32, count), list(range(count)))
        return builder.shuffle_vector(a, b, lanes)

    def mixed(a: Any, b: Any, picks: tuple[int, ...]) -> Any:
        """Pick four of the eight numbers that a and b have in each quarter."""
        lanes = [(_LANES if pick > 3 else 0) + 4 * q + pick % 4 for q in range(4) for pick in picks]
        return builder.shuffle_vector(a, b, ir.Constant(_V, lanes))

    # Rows i, i + 4, i + 8, i + 12 in one vector, then a transposition in each quarter.
    four = [
        joined(joined(lines[i], lines[i + 4]), joined(lines[i + 8], lines[i + 12]))
        for i in range(4)
    ]
    turned = []
    for picks in ((0, 4, 1, 5), (2, 6, 3, 7)):
        a, b = mixed(four[0], four[1], picks), mixed(four[2], four[3], picks)
        turned += [mixed(a, b, (0, 1, 4, 5)), mixed(a, b, (2, 3, 6, 7))]
    return turned


@intrinsic
def side_by_side(typingctx: Any, x: Any, first: Any, column: Any, quarters: Any, rows: Any) -> Any:
    """Lay 32 rows of bytes side by side, as `nearest_bytes` needs them.

    Parameters
    ----------
    x : (n, d) uint8; first : the first row; column : where to begin in each
    quarters : how many times 16 bytes of each row are taken, whether or not they belong to it
    rows : (4·quarters, 32) int32, written
    """
    signature = types.void(x, types.int64, types.int64, types.int64, rows)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin, stride = _rows_of(context, builder, signature.args[0], *arguments[:3])
        out = _address(context, builder, signature.args[4], arguments[4])
        with cgutils.for_range(builder, arguments[3], intp=_I64) as loop:
            place = builder.add(begin, builder.mul(loop.index, ir.Constant(_I64, 16)))
            target = builder.add(out, builder.mul(loop.index, ir.Constant(_I64, 16 * GROUP)))
            for v in range(_VECTORS):
                lines = []
                for i in range(_LANES):
                    offset = builder.mul(stride, ir.Constant(_I64, v * _LANES + i))
                    lines.append(_load(builder, builder.add(place, offset), _QUARTER, 1))
                for t, vector in enumerate(_turned(builder, lines)):
                    at = ir.Constant(_I64, 4 * GROUP * t + 64 * v)
                    _store(builder, vector, builder.add(target, at))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def rounded(
    typingctx: Any,
    x: Any,
    first: Any,
    column: Any,
    shift: Any,
    scale: Any,
    rows: Any,
    lengths: Any,
) -> Any:
    """Round 32 rows to int16 and lay them side by side, as `nearest_pairs` needs them.

    Parameters
    ----------
    x : (n, d) uint8 or float32; first : the first row; column : where to begin in each
    shift : (8·quarters,) int16 for uint8, float32 for float32
        Taken from each row, and how many numbers of it are read.
    scale : float32
        Floats are multiplied by it, and what int16 does not hold becomes ±32,767.
    rows : (4·quarters, 32) int32, written
    lengths : (32,) float32, written
        The squared lengths of the rounded rows.
    """
    signature = types.void(x, types.int64, types.int64, shift, types.float32, rows, lengths)
    bytes_ = x.dtype == types.uint8

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin, stride = _rows_of(context, builder, signature.args[0], *arguments[:3])
        shift, out, lengths = (
            _address(context, builder, signature.args[i], arguments[i]) for i in (3, 5, 6)
        )
        size = 1 if bytes_ else 4
        short, single = ir.VectorType(ir.IntType(16), 8), ir.VectorType(ir.FloatType(), 8)
        shifts = context.make_array(signature.args[3])(context, builder, arguments[3])
        count = builder.lshr(builder.extract_value(shifts.shape, 0), ir.Constant(_I64, 3))
        dot = _dot_pairs(str(context.codegen().magic_tuple()[-1]))
        scale = ir.Constant(single, ir.Undefined)
        for lane in range(8):
            scale = builder.insert_element(scale, arguments[4], ir.Constant(_I32, lane))

        def line(place: Any, own: Any) -> Any:
            if bytes_:
                read = _load(builder, place, ir.VectorType(ir.IntType(8), 8), 1)
                return builder.bitcast(builder.sub(builder.zext(read, short), own), _QUARTER)
            value = builder.fmul(builder.fsub(_load(builder, place, single, 4), own), scale)
            for name, limit in (("minnum", 32767.0), ("maxnum", -32767.0)):
                edge = ir.Constant(single, [limit] * 8)
                value = _call(builder, f"llvm.{name}.v8f32", single, value, edge)
            value = _call(builder, "llvm.rint.v8f32", single, value)
            whole = builder.fptosi(value, ir.VectorType(_I32, 8))
            return builder.bitcast(builder.trunc(whole, short), _QUARTER)

        for v in range(_VECTORS):
            _store(builder, ir.Constant(_F, [0.0] * _LANES), _past(builder, lengths, 64 * v))
        with cgutils.for_range(builder, count, intp=_I64) as loop:
            place = builder.add(begin, builder.mul(loop.index, ir.Constant(_I64, 8 * size)))
            target = builder.add(out, builder.mul(loop.index, ir.Constant(_I64, 16 * GROUP)))
            width = 2 if bytes_ else 4
            own = builder.add(shift, builder.mul(loop.index, ir.Constant(_I64, 8 * width)))
            taken = _load(builder, own, short if bytes_ else single, width)
            for v in range(_VECTORS):
                lines = []
                for i in range(_LANES):
                    offset = builder.mul(stride, ir.Constant(_I64, v * _LANES + i))
                    lines.append(line(builder.add(place, offset), taken))
                total = _load(builder, _past(builder, lengths, 64 * v), _F, 4)
                for t, vector in enumerate(_turned(builder, lines)):
                    _store(builder, vector, _past(builder, target, 4 * GROUP * t + 64 * v))
                    # At most 2·32,767², which int32 holds; their sum it may not.
                    square = dot(builder, _every(0), vector, vector)
                    total = builder.fadd(total, builder.sitofp(square, _F))
                _store(builder, total, _past(builder, lengths, 64 * v))
        return context.get_dummy_value()

    return signature, codegen


def _past(builder: Any, address: Any, count: int) -> Any:
    return builder.add(address, ir.Constant(_I64, count))
