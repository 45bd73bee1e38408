"""Steering on stock vLLM: a plugin that vLLM finds by itself, and a way to start its server.

Importing this needs no vLLM; `plugin.register`, which vLLM calls in each of its processes, does.
"""

from odesteer.vllm.server import serve, server_command

__all__ = ["serve", "server_command"]
