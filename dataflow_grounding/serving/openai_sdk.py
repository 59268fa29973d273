"""The OpenAI serving with OpenAI's own client underneath, in place of our transport.

It is for `vlm.openai.client: sdk`, and for Azure with Entra ID.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias, cast
from urllib.parse import parse_qsl

from dataflow_grounding._util.environment import names_address
from dataflow_grounding._util.errors import EndpointRefused, MissingPackage, SpecError
from dataflow_grounding._util.secrets import learn
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.users_code import call_in_thread
from dataflow_grounding.serving._transport import ClientTransport, Transport, checked_address
from dataflow_grounding.serving.openai_compatible import OpenAIServing
from dataflow_grounding.spec.user_code import named

TokenProvider: TypeAlias = Callable[[], str | Awaitable[str]]
"""A function that returns an Entra token; it may be async."""


# Keys of settings, as a spec has them.
_PROVIDER = "vlm.openai.azure.token_provider"
_ENDPOINT = "vlm.openai.azure.endpoint"


class OpenAISdkServing(OpenAIServing):
    """OpenAIServing that sends through OpenAI's own client.

    It is `openai.AsyncOpenAI`, or `AsyncAzureOpenAI` where `azure_endpoint` is given. Bodies,
    replies, errors and stored replies are OpenAIServing's: changing from one to the other asks
    nothing again. The client's own retries are off. It takes more CPU time per request
    (docs/measurements/performance.md).

    Args:
        api_url: Address of the endpoint; without it, and without `azure_endpoint`, OpenAI's own.
        model_name: Name of the model; on Azure, of the deployment.
        azure_endpoint: The Azure resource: `https://NAME.openai.azure.com`.
        api_version: Azure's version of the API: `2024-10-21`.
        token_provider: Returns an Entra token, which is sent instead of a key: a function without
            arguments, async or not, or its name, `module:function`, whose module may be in the
            current folder. It is called for each request.
        settings: All other settings of OpenAIServing.

    Raises:
        SpecError: For a setting with which nothing could be sent.

    Example:
        >>> from dataflow_grounding import CaptionGenerator
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> with LoopbackServer(CannedAnswers('{"caption": "A cat on a rug."}')) as server:
        ...     serving = OpenAISdkServing(
        ...         azure_endpoint=server.address,
        ...         api_version="2024-10-21",
        ...         model_name="mine",
        ...         token_provider=lambda: "a token",
        ...     )
        ...     CaptionGenerator(serving)({"image_path": "example_data/images/cat.jpg"})["caption"]
        'A cat on a rug.'
    """

    def __init__(
        self,
        api_url: str | None = None,
        model_name: str = "",
        *,
        azure_endpoint: str | None = None,
        api_version: str | None = None,
        token_provider: TokenProvider | str | None = None,
        **settings: Any,
    ) -> None:
        self._azure_version = api_version if azure_endpoint else None
        if azure_endpoint:
            if api_url:
                url = setting("vlm.openai.base_url")
                raise SpecError(f"{url} and {setting(_ENDPOINT)} are both set: leave one out")
            api_url = _address_of_deployment(azure_endpoint, model_name, api_version)
            # `settings` come second: the caller may name another variable
            settings = {"key_name_of_api_key": "AZURE_OPENAI_API_KEY", **settings}
        elif api_version or token_provider:
            raise SpecError(f"{setting(_ENDPOINT)} is missing: name the Azure resource")
        super().__init__(api_url, model_name, **settings)
        self._provider: TokenProvider | None = None
        if isinstance(token_provider, str):
            if token_provider:  # an empty name counts as none
                self._provider = provider_named(token_provider, ["."])
        else:
            self._provider = token_provider or None
        if self._provider is not None:
            _refuse_token_for(self._url)

    @property
    def has_key(self) -> bool:
        return self._api_key is not None or self._provider is not None

    def obstacles(self) -> list[str]:
        """Return what prevents it from sending: openai's client is missing, too."""
        obstacles = super().obstacles()
        if find_spec("openai") is None:
            obstacles.append(str(MissingPackage(f"{setting('vlm.openai.client')} sdk", "openai")))
        return obstacles

    def _open(self) -> Transport:
        import openai

        address, _, query = self._url.partition("?")
        headers: dict[str, Any] = dict(self.extra_headers)
        http_client = openai.DefaultAsyncHttpxClient()
        settings: dict[str, Any] = {
            "http_client": http_client,
            "base_url": address,
            "default_query": dict(parse_qsl(query, keep_blank_values=True)),
        }
        if self._provider is not None:
            settings["azure_ad_token_provider"] = self._token
        elif self._api_key:
            settings["api_key"] = self._api_key
        else:
            # The client insists on a key. `Omit` leaves out the headers that would hold it.
            settings["api_key"] = "none"
            headers = {"Authorization": openai.Omit(), "api-key": openai.Omit(), **headers}
        if self._azure_version:
            client: Any = openai.AsyncAzureOpenAI(api_version=self._azure_version, **settings)
        else:
            client = openai.AsyncOpenAI(**settings)
        url = self._address("chat/completions")
        return ClientTransport(client, url, self.timeout, headers, http_client=http_client)

    async def _token(self) -> str:
        assert self._provider is not None
        try:
            token: Any = await call_in_thread(self._provider)  # it may ask the network
            if inspect.isawaitable(token):
                token = await token
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            # The error's words may hold the secret, so they aren't shown.
            raised = f"it raised {type(error).__name__}; call it in Python to see why"
            raise EndpointRefused(
                f"{setting(_PROVIDER)} gave no token: {raised}", certain=False
            ) from None
        return _checked_token(token)


def _checked_token(token: Any) -> str:
    """The token, which is masked from now on."""
    if not isinstance(token, str) or not token:
        raise EndpointRefused(
            f"{setting(_PROVIDER)} should return a token, a text that is not empty"
        )
    learn(token)
    if not (token.isascii() and token.isprintable()):
        raise EndpointRefused(
            f"{setting(_PROVIDER)} returned a token that no header can hold: a line break?"
        )
    return token


def _refuse_token_for(url: str) -> None:
    """A `.env` file's address may be a stranger's: neither a key nor a token goes there."""
    named_by = names_address(url)
    if named_by:
        variable, file = named_by
        raise SpecError(
            f"{variable} is set by {file}, and {setting(_PROVIDER)} would give its token to"
            f" that address: set {variable} in the environment, or the address in the spec"
        )


def _address_of_deployment(azure_endpoint: str, model_name: str, api_version: str | None) -> str:
    """The same as OpenAIServing is given, so that both have the same stored replies."""
    if not api_version:
        version = setting("vlm.openai.azure.api_version")
        raise SpecError(f"{version} is missing: set it, for instance to 2024-10-21")
    checked_address(azure_endpoint, "vlm.openai.azure", "endpoint")
    deployment = f"{azure_endpoint.rstrip('/')}/openai/deployments/{model_name}"
    return f"{deployment}?api-version={api_version}"


def provider_named(name: str, folders: Sequence[str]) -> TokenProvider:
    """Import `module:function`; its module may be in one of `folders`. Raises SpecError where there
    is no function of that name.
    """
    # This imports pydantic, which a serving that isn't made from a spec does without.
    provider = named(name, setting(_PROVIDER), shipped=(), folders=folders, quoting=False)
    if not callable(provider):
        raise SpecError(
            f"{setting(_PROVIDER)} {name!r} should be a function, written module:function"
        )
    return cast(TokenProvider, provider)
