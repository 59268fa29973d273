"""The dialect of Label Studio's ML backends."""

from aiohttp import web

from dataflow_grounding.serve.service import Service


def routes(service: Service) -> list[web.RouteDef]:
    """Return the routes of this dialect."""
    return []
