"""The last sender: a serving answers."""

from dataflow_grounding._util import errors
from dataflow_grounding.engine.senders.other_models import Answerers
from dataflow_grounding.engine.senders.sender import Asked
from dataflow_grounding.serving.client_errors import fault_of_client
from dataflow_grounding.serving.serving import Reply, Serving, reply_of


class ToServing:
    """Sends by a serving; a user's own may let the errors of its HTTP client through."""

    def __init__(self, serving: Serving, answerers: Answerers) -> None:
        self._serving = serving
        self._answerers = answerers

    async def send(self, asked: Asked) -> Reply:
        serving = self._serving
        try:
            reply = await reply_of(serving, asked.request)
        except errors.GroundingError:
            raise
        except Exception as error:
            fault = fault_of_client(error, f"{type(serving).__name__} ({serving.model})")
            if fault is None:
                raise
            raise fault from error
        self._answerers.add(reply, serving.endpoint)
        for name in self._answerers.others:
            asked.request.sending.other_model(name)
        return reply
