"""Size of a chunk of a long prompt: what its computation may add to a decoding step."""

_SHARE = 0.7
"""Of the time of a decoding step; so decoded texts take at most about 1.7 times as long."""

_LEAST = 8
"""A pass over fewer tokens costs about as much."""

_NEW_WEIGHT = 0.5
"""Weight of a new duration in the moving average of the seconds that a token takes."""


class ChunkSize:
    """How many tokens of a long prompt are computed between two decoding steps.

    As many as take a share of the time of a step, by the durations of the chunks before: on a CPU a
    token of a prompt costs about as much as one that is decoded, on an accelerator far less.

    Args:
        most: the most tokens of a chunk.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seconds_per_token: float | None = None

    def tokens(self, step_seconds: float, computed: int = 0) -> int:
        """Beside a decoding step of so many seconds and ``computed`` tokens of short prompts.

        Never less than half of what it is without these, so that they do not hold it up for good.
        """
        if self._seconds_per_token is None:
            n_tokens = self._most // 4
        else:
            n_tokens = round(_SHARE * step_seconds / max(self._seconds_per_token, 1e-9))
        n_tokens = max(n_tokens - computed, n_tokens // 2, _LEAST)
        return max(min(n_tokens, self._most), 1)

    def note(self, n_tokens: int, seconds: float) -> None:
        """Note how long a chunk has taken."""
        found = seconds / n_tokens
        known = found if self._seconds_per_token is None else self._seconds_per_token
        self._seconds_per_token = known + _NEW_WEIGHT * (found - known)
