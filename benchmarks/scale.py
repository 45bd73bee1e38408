"""Cost model: bytes and operations of a decoding step, steered and unsteered.

    python -m benchmarks.scale [--rank R]

A step of decoding reads every weight once, and the keys and values of each row, and multiplies
each weight by each row. Steering a row at one site reads the basis Q `[d, r]` twice (once for all
rows) and takes two products with it; steps of the flow in eigen-coordinates add O(r) each.

    bytes      weights / ranks + rows · context · keys and values / ranks;  steering 2·4·d·r
    operations 2 · weights · rows / ranks;                                  steering 2·2·d·r·rows

The share of time is that of the bytes where memory is the bound, as in decoding. Under tensor
parallelism each rank holds a part of the weights, and the residual stream whole: every rank steers
for itself, so the share grows with their number. What launches cost is not in it.
"""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-3.1 model."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    words: int = 128256

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def weights(self) -> int:
        """Numbers that a step multiplies by: all but the embedding, of which it reads a row."""
        attention = 2 * self.width * (self.heads + self.kv_heads) * self.head_width
        return self.layers * (attention + 3 * self.width * self.inner) + self.words * self.width

    @property
    def kv_bytes(self) -> int:
        """Keys and values of one token, in 16 bits."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_width


SHAPES = (
    Shape("8B", 4096, 32, 32, 8, 14336),
    Shape("70B", 8192, 80, 64, 8, 28672),
    Shape("405B", 16384, 126, 128, 8, 53248),
)


@dataclass(frozen=True)
class Cost:
    """Of one step of decoding, on one rank."""

    step_bytes: float
    step_operations: float
    steering_bytes: float
    steering_operations: float

    @property
    def share_of_bytes(self) -> float:
        return self.steering_bytes / self.step_bytes

    @property
    def share_of_operations(self) -> float:
        return self.steering_operations / self.step_operations


def cost(shape: Shape, rank: int, rows: int, context: int, ranks: int) -> Cost:
    """See above; weights, keys and values in 16 bits, the basis in 32."""
    return Cost(
        (2 * shape.weights + rows * context * shape.kv_bytes) / ranks,
        2 * shape.weights * rows / ranks,
        2 * 4 * shape.width * rank,
        2 * 2 * shape.width * rank * rows,
    )


def main(
    rank: Annotated[int, typer.Option(help="r, of the barrier's quadratic function.")] = 135,
    context: Annotated[int, typer.Option(help="Tokens behind each row.")] = 1024,
) -> None:
    """Print the table."""
    console = Console(width=130)
    table = Table(
        *("model", "ranks", "rows", "step, GB a rank", "step, GFLOP", "steering, MB"),
        *("steering, MFLOP", "share of bytes", "share of FLOP"),
        title=f"rank {rank}, context {context}, one site",
    )
    for shape, many in zip(SHAPES, (1, 8, 8), strict=True):
        for ranks in sorted({1, many}):
            for rows in (1, 16, 64):
                c = cost(shape, rank, rows, context, ranks)
                table.add_row(
                    *(shape.name, str(ranks), str(rows)),
                    f"{c.step_bytes / 1e9:.2f}",
                    f"{c.step_operations / 1e9:,.0f}",
                    f"{c.steering_bytes / 1e6:.1f}",
                    f"{c.steering_operations / 1e6:.1f}",
                    f"{c.share_of_bytes:.3%}",
                    f"{c.share_of_operations:.4%}",
                )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
