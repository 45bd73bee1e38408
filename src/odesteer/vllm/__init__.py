"""Plugin for stock vLLM, which vLLM loads by itself, and a way to start its server with steerers.

Importing this needs no vLLM; `plugin.register`, which vLLM calls in each of its processes, does.
"""

from odesteer.vllm.server import serve, server_command

__all__ = ["serve", "server_command"]
