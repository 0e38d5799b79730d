"""The inner loop of going down a tree: one vector against centers that lie side by side.

The products are those of `vwkit_numba.lanes`, added up in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from vwkit_numba import lanes
from vwkit_numba.lanes import LANES

__all__ = ["products_4", "products_8"]

_V = ir.VectorType(ir.FloatType(), LANES)


def _products(width: int) -> Any:
    """Make an intrinsic that writes the products of one vector and `width` centers in a row.

    It takes x, (16·blocks,) float32; `blocks`; centers, (k, 16·blocks) float32; the first of them;
    and where to write, (16,) float32, of which the entries behind `width` mean nothing.
    """

    def products(typingctx: Any, x: Any, blocks: Any, centers: Any, row: Any, out: Any) -> Any:
        signature = types.void(x, types.int64, centers, types.int64, out)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def load(address: Any) -> Any:
                value = builder.load(builder.inttoptr(address, _V.as_pointer()))
                value.align = 4
                return value

            x, centers, out = (
                lanes._address(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 4)
            )
            blocks = arguments[1]
            wide = ir.IntType(64)
            step = builder.mul(blocks, ir.Constant(wide, 4 * LANES))
            rows = [builder.add(centers, builder.mul(arguments[3], step))]
            for _ in range(width - 1):
                rows.append(builder.add(rows[-1], step))
            start = builder.block
            body = builder.append_basic_block("dims")
            done = builder.append_basic_block("dims.done")
            builder.branch(body)
            builder.position_at_end(body)
            at = builder.phi(wide)
            at.add_incoming(ir.Constant(wide, 0), start)
            held = []
            for _ in range(width):
                held.append(builder.phi(_V))
                held[-1].add_incoming(ir.Constant(_V, [0.0] * LANES), start)
            offset = builder.mul(at, ir.Constant(wide, 4 * LANES))
            left = load(builder.add(x, offset))
            summed = [
                lanes._fma(builder, left, load(builder.add(row, offset)), phi)
                for row, phi in zip(rows, held, strict=True)
            ]
            following = builder.add(at, ir.Constant(wide, 1))
            at.add_incoming(following, body)
            for phi, value in zip(held, summed, strict=True):
                phi.add_incoming(value, body)
            builder.cbranch(builder.icmp_signed("<", following, blocks), body, done)
            builder.position_at_end(done)
            lanes._store(builder, _low(builder, summed), out)
            return context.get_dummy_value()

        return signature, codegen

    products.__name__ = f"products_{width}"
    return lanes.intrinsic(products)


def _low(builder: Any, parts: Sequence[Any]) -> Any:
    """Add up the lanes of a few vectors: lane i of the result is the sum of vector i."""
    folded = lanes._sums(builder, parts)
    distance = len(parts)
    while distance < LANES:
        turned = [lane ^ distance for lane in range(LANES)]
        folded = builder.fadd(folded, lanes._shuffle(builder, folded, folded, turned))
        distance *= 2
    return folded


products_4: Any = _products(4)
products_8: Any = _products(8)
