"""Error messages without Ray or without a cluster."""

import socket
import sys

import pytest

from odesteer.cluster import Cluster
from odesteer.errors import ClusterError, InvalidInputError, MissingDependencyError


def test_without_ray_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'odesteer\[ray\]'"):
        Cluster().__enter__()


@pytest.mark.parametrize("name", ["workers", "threads", "attempts"])
def test_there_is_at_least_one_of_each(name: str) -> None:
    for value in (0, 1.5, True):
        with pytest.raises(InvalidInputError, match=f"{name} must be a positive integer"):
            Cluster(**{name: value})


def test_an_address_where_nobody_answers_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"nothing answers at '{address}'"):
            Cluster(address=address).__enter__()


def test_an_address_of_ray_client_is_refused_with_the_remedy() -> None:
    with pytest.raises(ClusterError, match="give host:port of the cluster itself"):
        Cluster(address="ray://127.0.0.1:10001").__enter__()


def test_a_cluster_is_used_in_its_block() -> None:
    with pytest.raises(ClusterError, match="with Cluster"):
        Cluster().map(print, [1], None)
