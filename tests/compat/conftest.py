"""The endpoint of these tests."""

from tests.support.shared_endpoint import endpoint, server

__all__ = ["endpoint", "server"]
