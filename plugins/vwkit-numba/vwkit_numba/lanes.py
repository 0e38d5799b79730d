"""The inner loop: four vectors against a list of centers, in explicit vector instructions.

The compiler's own vectorizer reaches a tenth of what the machine can do here, so the loop is
written down in LLVM's vector types, which every processor has (wide ones in one register, others in
several). Each product x·c is added up in sixteen lanes, each in the order of the dimensions, and
the lanes in one fixed tree: the result depends on the two vectors alone, never on what else is in
the block, nor on the width of the machine's registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

__all__ = [
    "LANES",
    "POINTS",
    "dots_4",
    "dots_16",
    "nearest_4",
    "prefetch",
    "product",
    "squared_distance",
]

LANES = 16
#: Vectors that are compared at once.
POINTS = 4

F = TypeVar("F", bound=Callable[..., Any])

# It has no types of its own.
_declared: Any = cgutils.get_or_insert_function


def intrinsic(function: Callable[..., Any]) -> Any:
    """Let compiled code call what `function` writes in LLVM's language: numba's own, with types.

    The callers do not give the first argument, which is numba's.
    """
    return _intrinsic(function)


_F = ir.FloatType()
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_V = ir.VectorType(_F, LANES)
_VI = ir.VectorType(_I32, LANES)
_M = ir.VectorType(ir.IntType(1), LANES)


def _call(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    kind = ir.FunctionType(result, [one.type for one in arguments])
    function = _declared(builder.module, kind, name)
    return builder.call(function, list(arguments))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fma.v{LANES}f32", _V, [a, b, c])


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    pointer = builder.inttoptr(address, kind.as_pointer())
    loaded = builder.load(pointer)
    loaded.align = align
    return loaded


def _store(builder: Any, value: Any, address: Any) -> None:
    pointer = builder.inttoptr(address, value.type.as_pointer())
    builder.store(value, pointer).align = 4


def _address(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return where the numbers of an array lie."""
    return builder.ptrtoint(context.make_array(kind)(context, builder, array).data, _I64)


def _behind(builder: Any, address: Any, count: Any, size: int) -> Any:
    return builder.add(address, builder.mul(count, ir.Constant(_I64, size)))


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(_VI, list(order)))


def _sums(builder: Any, parts: Sequence[Any]) -> Any:
    """Add up the lanes of sixteen vectors: lane i of the result is the sum of vector i.

    In each round two vectors become one that holds half-sums of both; four rounds leave one.
    """
    # After a round with distance h, lane l of a merged vector belongs to its first parent where
    # bit h of l is 0, to the second where it is 1.
    distance = 1
    level = list(parts)
    while len(level) > 1:
        merged = []
        for a, b in zip(level[0::2], level[1::2], strict=True):
            own = [
                lane if not lane & distance else LANES + (lane ^ distance) for lane in range(LANES)
            ]
            other = [
                (lane ^ distance) if not lane & distance else LANES + lane for lane in range(LANES)
            ]
            merged.append(
                builder.fadd(_shuffle(builder, a, b, own), _shuffle(builder, a, b, other))
            )
        level = merged
        distance *= 2
    return level[0]


def _tile(builder: Any, xs: Sequence[Any], cs: Sequence[Any], blocks: Any) -> Any:
    """Return the sixteen products of all vectors and all centers, vector by vector."""
    zero = ir.Constant(_V, [0.0] * LANES)
    start = builder.block
    body = builder.append_basic_block("dims")
    done = builder.append_basic_block("dims.done")
    builder.branch(body)
    builder.position_at_end(body)
    at = builder.phi(_I64)
    at.add_incoming(ir.Constant(_I64, 0), start)
    held = []
    for _ in range(LANES):
        phi = builder.phi(_V)
        phi.add_incoming(zero, start)
        held.append(phi)
    offset = builder.mul(at, ir.Constant(_I64, 4 * LANES))
    left = [_load(builder, builder.add(x, offset), _V, 4) for x in xs]
    right = [_load(builder, builder.add(c, offset), _V, 4) for c in cs]
    pairs = [(a, b) for a in left for b in right]
    summed = [_fma(builder, a, b, phi) for (a, b), phi in zip(pairs, held, strict=True)]
    following = builder.add(at, ir.Constant(_I64, 1))
    at.add_incoming(following, body)
    for phi, value in zip(held, summed, strict=True):
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", following, blocks), body, done)
    builder.position_at_end(done)
    return _sums(builder, summed)


def _over_blocks(
    builder: Any, x: Any, c: Any, blocks: Any, added: Callable[[Any, Any, Any], Any]
) -> Any:
    """Return sixteen lanes added up over the blocks of two vectors: ``added(left, right, held)``."""
    start = builder.block
    body = builder.append_basic_block("dims")
    done = builder.append_basic_block("dims.done")
    builder.branch(body)
    builder.position_at_end(body)
    at, held = builder.phi(_I64), builder.phi(_V)
    at.add_incoming(ir.Constant(_I64, 0), start)
    held.add_incoming(ir.Constant(_V, [0.0] * LANES), start)
    left = _load(builder, _behind(builder, x, at, 4 * LANES), _V, 4)
    right = _load(builder, _behind(builder, c, at, 4 * LANES), _V, 4)
    summed = added(left, right, held)
    following = builder.add(at, ir.Constant(_I64, 1))
    at.add_incoming(following, body)
    held.add_incoming(summed, body)
    builder.cbranch(builder.icmp_signed("<", following, blocks), body, done)
    builder.position_at_end(done)
    return summed


def _folded(builder: Any, lanes: Any, distances: Sequence[int]) -> Any:
    """Return the sum of sixteen lanes, those at the first distance added first."""
    for distance in distances:
        turned = [lane ^ distance for lane in range(LANES)]
        lanes = builder.fadd(lanes, _shuffle(builder, lanes, lanes, turned))
    return builder.extract_element(lanes, ir.Constant(_I32, 0))


@intrinsic
def nearest_4(
    typingctx: Any,
    x: Any,
    row: Any,
    blocks: Any,
    centers: Any,
    half: Any,
    lists: Any,
    begin: Any,
    count: Any,
    out: Any,
) -> Any:
    """Find the two nearest of listed centers for four vectors.

    Parameters
    ----------
    x : (rows, 16·blocks) float32; row : the first of the four; blocks : of sixteen dimensions
    centers : (k, 16·blocks) float32; half : (k,) float32, ‖c‖²/2
    lists : int32 center numbers; begin, count : which of them, `count` a multiple of four
    out : (48,) float32
        Written: sixteen best values ‖c‖²/2 − x·c, their centers (as int32), the second best values.
        Lane 4·p + j is of vector p among the entries j, j + 4, … of the list.
    """
    signature = types.void(
        x, types.int64, types.int64, centers, half, lists, types.int64, types.int64, out
    )

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        blocks, begin, count = arguments[2], arguments[6], arguments[7]
        x, centers, half, lists, out = (
            _address(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 4, 5, 8)
        )
        step = builder.mul(blocks, ir.Constant(_I64, 4 * LANES))
        xs = [builder.add(x, builder.mul(arguments[1], step))]
        for _ in range(POINTS - 1):
            xs.append(builder.add(xs[-1], step))
        listed = _behind(builder, lists, begin, 4)
        start = builder.block
        body = builder.append_basic_block("list")
        builder.branch(body)
        builder.position_at_end(body)
        far = ir.Constant(_V, [3e38] * LANES)
        at = builder.phi(_I64)
        best, second, where = builder.phi(_V), builder.phi(_V), builder.phi(_VI)
        at.add_incoming(ir.Constant(_I64, 0), start)
        best.add_incoming(far, start)
        second.add_incoming(far, start)
        where.add_incoming(ir.Constant(_VI, [0] * LANES), start)

        ids = _load(builder, _behind(builder, listed, at, 4), ir.VectorType(_I32, 4), 4)
        cs, norms = [], ir.Constant(ir.VectorType(_F, 4), ir.Undefined)
        for c in range(4):
            one = builder.sext(builder.extract_element(ids, ir.Constant(_I32, c)), _I64)
            cs.append(builder.add(centers, builder.mul(one, step)))
            norm = _load(builder, _behind(builder, half, one, 4), _F, 4)
            norms = builder.insert_element(norms, norm, ir.Constant(_I32, c))
        products = _tile(builder, xs, cs, blocks)
        repeat = ir.Constant(_VI, [lane % 4 for lane in range(LANES)])
        center = builder.shuffle_vector(ids, ids, repeat)
        value = builder.fsub(builder.shuffle_vector(norms, norms, repeat), products)
        nearer = builder.fcmp_ordered("<", value, best)
        higher = builder.select(nearer, best, value)
        lower = builder.fcmp_ordered("<", higher, second)
        new_second = builder.select(lower, higher, second)
        new_best = builder.select(nearer, value, best)
        new_where = builder.select(nearer, center, where)
        following = builder.add(at, ir.Constant(_I64, 4))
        end = builder.block
        at.add_incoming(following, end)
        best.add_incoming(new_best, end)
        second.add_incoming(new_second, end)
        where.add_incoming(new_where, end)
        done = builder.append_basic_block("list.done")
        builder.cbranch(builder.icmp_signed("<", following, count), body, done)
        builder.position_at_end(done)
        _store(builder, new_best, out)
        _store(builder, new_where, builder.add(out, ir.Constant(_I64, 4 * LANES)))
        _store(builder, new_second, builder.add(out, ir.Constant(_I64, 8 * LANES)))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def dots_4(typingctx: Any, x: Any, blocks: Any, centers: Any, row: Any, out: Any) -> Any:
    """Write the 4 × 4 products of the first four vectors and the centers from `row` on to `out`."""
    signature = types.void(x, types.int64, centers, types.int64, out)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, centers, out = (
            _address(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 4)
        )
        blocks = arguments[1]
        step = builder.mul(blocks, ir.Constant(_I64, 4 * LANES))
        xs, cs = [x], [builder.add(centers, builder.mul(arguments[3], step))]
        for _ in range(3):
            xs.append(builder.add(xs[-1], step))
            cs.append(builder.add(cs[-1], step))
        _store(builder, _tile(builder, xs, cs, blocks), out)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def dots_16(
    typingctx: Any,
    centers: Any,
    own: Any,
    blocks: Any,
    lists: Any,
    begin: Any,
    out: Any,
) -> Any:
    """Write the products of one center and sixteen listed ones to ``out[begin:begin + 16]``."""
    signature = types.void(centers, types.int64, types.int64, lists, types.int64, out)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        centers, lists, out = (
            _address(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 5)
        )
        own, blocks, begin = arguments[1], arguments[2], arguments[4]
        step = builder.mul(blocks, ir.Constant(_I64, 4 * LANES))
        listed = _behind(builder, lists, begin, 4)
        cs = []
        for c in range(LANES):
            place = builder.add(listed, ir.Constant(_I64, 4 * c))
            number = builder.sext(_load(builder, place, _I32, 4), _I64)
            cs.append(builder.add(centers, builder.mul(number, step)))
        x = builder.add(centers, builder.mul(own, step))
        _store(builder, _tile(builder, [x], cs, blocks), _behind(builder, out, begin, 4))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def product(typingctx: Any, x: Any, row: Any, blocks: Any, centers: Any, center: Any) -> Any:
    """Return x·c of one vector and one center, bit for bit as the tiles have it."""
    signature = types.float32(x, types.int64, types.int64, centers, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, centers = (_address(context, builder, signature.args[i], arguments[i]) for i in (0, 3))
        blocks = arguments[2]
        step = builder.mul(blocks, ir.Constant(_I64, 4 * LANES))
        vector = builder.add(x, builder.mul(arguments[1], step))
        center = builder.add(centers, builder.mul(arguments[4], step))

        def multiplied(left: Any, right: Any, held: Any) -> Any:
            return _fma(builder, left, right, held)

        held = _over_blocks(builder, vector, center, blocks, multiplied)
        return _folded(builder, held, (1, 2, 4, 8))  # the order of `_sums`

    return signature, codegen


@intrinsic
def squared_distance(typingctx: Any, x: Any, blocks: Any, centers: Any, row: Any) -> Any:
    """Return ‖x − c‖² of a vector and the center `row`."""
    signature = types.float32(x, types.int64, centers, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, centers = (_address(context, builder, signature.args[i], arguments[i]) for i in (0, 2))
        blocks = arguments[1]
        step = builder.mul(blocks, ir.Constant(_I64, 4 * LANES))
        center = builder.add(centers, builder.mul(arguments[3], step))

        def squared(left: Any, right: Any, held: Any) -> Any:
            apart = builder.fsub(left, right)
            return _fma(builder, apart, apart, held)

        held = _over_blocks(builder, x, center, blocks, squared)
        return _folded(builder, held, (8, 4, 2, 1))

    return signature, codegen


@intrinsic
def prefetch(typingctx: Any, x: Any, row: Any) -> Any:
    """Ask the memory for the beginning of a row that will be read soon: rows lie anywhere."""
    signature = types.void(x, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, arguments[0])
        step = builder.extract_value(array.strides, 0)
        at = builder.add(builder.ptrtoint(array.data, _I64), builder.mul(arguments[1], step))
        byte = ir.IntType(8).as_pointer()
        hint = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = _declared(builder.module, hint, "llvm.prefetch.p0")
        for line in range(0, 128 * kind.dtype.bitwidth // 8, 64):
            place = builder.inttoptr(builder.add(at, ir.Constant(_I64, line)), byte)
            builder.call(function, [place, *(ir.Constant(_I32, n) for n in (0, 2, 1))])
        return context.get_dummy_value()

    return signature, codegen
