"""The OpenAI serving with OpenAI's own client underneath, in place of our transport.

It is for `vlm.openai.client: sdk`.
"""

from importlib.util import find_spec
from urllib.parse import parse_qsl

from dataflow_grounding._util.errors import MissingPackage
from dataflow_grounding._util.settings import setting
from dataflow_grounding.serving._transport import ClientTransport, Transport
from dataflow_grounding.serving.openai_compatible import OpenAIServing


class OpenAISdkServing(OpenAIServing):
    """OpenAIServing that sends through OpenAI's own client, `openai.AsyncOpenAI`.

    Bodies, replies, errors and stored replies are OpenAIServing's: changing from one to the other
    asks nothing again. The client's own retries are off. It takes more CPU time per request
    (docs/measurements.md). Its arguments are OpenAIServing's.

    Raises:
        SpecError: For a setting with which nothing could be sent.

    Example:
        >>> from dataflow_grounding import CaptionGenerator
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> with LoopbackServer(CannedAnswers('{"caption": "A cat on a rug."}')) as server:
        ...     serving = OpenAISdkServing(server.base_url, model_name="mine")
        ...     CaptionGenerator(serving)({"image_path": "example_data/images/cat.jpg"})["caption"]
        'A cat on a rug.'
    """

    def obstacles(self) -> list[str]:
        """Return what prevents it from sending: openai's client is missing, too."""
        obstacles = super().obstacles()
        if find_spec("openai") is None:
            obstacles.append(str(MissingPackage(f"{setting('vlm.openai.client')} sdk", "openai")))
        return obstacles

    def _open(self) -> Transport:
        import openai

        address, _, query = self._url.partition("?")
        headers: dict[str, object] = dict(self.extra_headers)
        if not self._api_key:
            # The client insists on a key. `Omit` leaves out the header that would hold it.
            headers = {"Authorization": openai.Omit(), **headers}
        http_client = openai.DefaultAsyncHttpxClient()
        client = openai.AsyncOpenAI(
            http_client=http_client,
            base_url=address,
            default_query=dict(parse_qsl(query, keep_blank_values=True)),
            api_key=self._api_key or "none",
        )
        url = self._address("chat/completions")
        return ClientTransport(client, url, self.timeout, headers, http_client=http_client)
