"""What endpoints say of a picture that is too large, in public threads, and what is no such thing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from PIL import Image

from dataflow_grounding import ground
from dataflow_grounding._util.errors import GroundingError, PictureTooLarge
from dataflow_grounding.serving import GeminiServing, OpenAIServing, Serving
from dataflow_grounding.serving.http_errors import error_of
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.faults import Fault
from tests.support.endpoint import Serves

NGINX = "<html><head><title>413 Request Entity Too Large</title></head><body></body></html>"


def message(text: str) -> str:
    return json.dumps({"error": {"message": text}})


# Answers that refuse, status and body, and where each was reported.
TOO_LARGE = {
    # https://github.com/anthropics/claude-code/issues/10612
    "Anthropic": (400, '{"type":"error","error":{"type":"invalid_request_error","message":"messages.0.content.2.image.source.base64: image exceeds 5 MB maximum: 15908784 bytes > 5242880 bytes"}}'),
    # https://github.com/aws-solutions-library-samples/accelerated-intelligent-document-processing-on-aws/issues/778
    "Bedrock": (400, message("The model returned the following errors: messages.0.content.2.image.source.bytes: image exceeds 5 MB maximum: 7167852 bytes > 5242880 bytes")),
    # https://github.com/google-gemini/deprecated-generative-ai-android/issues/26
    "Gemini": (400, message("Request payload size exceeds the limit: 4194304 bytes.")),
    # https://github.com/QwenLM/qwen-code/issues/1880
    "DashScope": (400, message("Exceeded limit on max bytes per data-uri item : 10485760")),
    # https://github.com/artokun/comfyui-mcp/issues/2221
    "OpenRouter": (413, '{"error":{"message":"Downloaded image content cannot exceed 30MB","code":413}}'),
    # https://github.com/huggingface/text-generation-inference/issues/1802
    "TGI": (413, "Failed to buffer the request body: length limit exceeded"),
    # https://github.com/agent0ai/agent-zero/issues/1857
    "a gateway": (413, '{"detail":"Request body too large"}'),
    # https://github.com/MayDay-wpf/snow-app/issues/113
    "another gateway": (413, '{"error":{"message":"Request payload is too large","type":"invalidrequesterror"}}'),
    # https://github.com/github/copilot-cli/issues/965
    "Copilot": (413, "413 Request Entity Too Large\n"),
    # https://github.com/bangumi/server-private/issues/1617
    "nginx": (413, NGINX),
    # https://github.com/anomalyco/opencode/issues/12060
    "Claude by OpenCode": (413, '{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}'),
    # https://github.com/sgl-project/sglang/issues/6622
    "SGLang": (422, "payload reached size limit"),
    # https://portkey.ai/error-library/input-size-error-10044
    "Azure": (400, message("The image size must be greater than zero and cannot exceed 20971520 bytes.")),
    # https://github.com/DreamMr/HR-Bench/issues/6
    "DashScope's files": (400, '{"error":{"code":"invalid_parameter_error","message":"Multimodal file size is too large"}}'),
    # https://github.com/google-gemini/deprecated-generative-ai-python/issues/695
    "Gemini's files": (400, message("The request's total referenced files bytes are too large to be read")),
    # https://github.com/QuantumNous/new-api/issues/958
    "new-api": (400, message("get file base64 from url failed: file size exceeds maximum allowed size: 20MB")),
    # https://github.com/gptme/gptme/issues/185
    "the same with 404": (404, message("messages.58.content.2.image.source.base64: image exceeds 5 MB maximum")),
}  # fmt: skip
OTHER = {
    # https://github.com/continuedev/continue/issues/10218
    "tokens a minute": (413, message("Request too large for model `llama-3.3-70b-versatile` on tokens per minute (TPM): Limit 12000, Requested 14137, please reduce your message size and try again.")),
    # https://github.com/vllm-project/vllm/issues/6301
    "vLLM's context": (400, message("This model's maximum context length is 3744 tokens. However, you requested 254457 tokens (254201 in the messages, 256 in the completion). Please reduce the length of the messages or completion.")),
    # https://github.com/vllm-project/vllm/issues/12165
    "vLLM's image tokens": (400, message("The prompt (total length 25938) is too long to fit into the model (context length 4096). Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens. For image inputs, the number of image tokens depends on the number of images, and possibly their aspect ratios as well.")),
    # https://github.com/anthropics/claude-code/issues/12186
    "Claude's context": (400, message("prompt is too long: 208310 tokens > 200000 maximum")),
    # https://github.com/anthropics/claude-code/issues/4778
    "pixels": (400, message("messages.7.content.2.image.source.base64.data: At least one of the image dimensions exceed max allowed size: 8000 pixels")),
    # https://github.com/aws-samples/video-semantic-search-with-aws-ai-ml-services/issues/4
    "Bedrock's pixels": (400, message("Image exceeds max pixels allowed.")),
    # https://github.com/openfoodfacts/openfoodfacts-server/issues/10764
    "megapixels": (400, message("Image too large. Please limit to 75 megapixels.")),
    # https://github.com/QwenLM/qwen-code/issues/2505
    "too narrow": (400, message("<400> InternalError.Algo.InvalidParameter: The image length and width do not meet the model restrictions. [height:400 or width:1 must be larger than 10]")),
    # https://github.com/openai/openai-python/issues/3551
    "no data URL": (400, message("'data:image/jpeg;base64,/9j/4AAQSkZJRgABAQ...' is not a valid absolute URI")),
    # https://github.com/mnfst/llm-gateway/issues/2126
    "no such path": (404, '{"message":"Cannot POST /v1/chat/completions","error":"Not Found","statusCode":404}'),
    # https://github.com/vllm-project/vllm/issues/13397
    "how many images": (400, message("At most 1 image(s) may be provided in one request.")),
    # https://github.com/AgnesAI-Labs/AgnesCode/issues/50
    "an image count": (400, message("Image count 5 exceeds limit 4 per request.")),
    # https://github.com/anomalyco/opencode/issues/48647
    "images contained": (400, message("request contains 52 images, exceeding the maximum of 50 allowed per request")),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_means_that_a_picture_is_too_large(status: int, body: str) -> None:
    assert isinstance(error_of(status, {}, body.encode(), where="here"), PictureTooLarge)


@pytest.mark.parametrize(("status", "body"), OTHER.values(), ids=OTHER)
def test_no_other_refusal_is_taken_for_one(status: int, body: str) -> None:
    assert not isinstance(error_of(status, {}, body.encode(), where="here"), PictureTooLarge)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PNG of noise with 300 KB, 400 in base64."""
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    noise = random.Random(0).randbytes(400 * 250 * 3)
    Image.frombytes("RGB", (400, 250), noise).save(path, compress_level=0)
    return str(path)


def in_base64(request: ReceivedRequest) -> int:
    return sum(4 * -(-image.size // 3) for image in request.images)


@pytest.fixture
def refusing(serves: Serves) -> Callable[[int, str], LoopbackServer]:
    """An endpoint that so refuses pictures of more than 300 KB."""

    def server(status: int, body: str) -> LoopbackServer:
        fault = Fault(status, body=body.encode())
        return serves(faults=on(fault, where=lambda request: in_base64(request) > 300_000))

    return server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"), [("Anthropic", "openai"), ("nginx", "openai"), ("Gemini", "gemini")]
)
def test_a_picture_that_is_refused_as_too_large_is_reduced_once(
    picture: str, refusing: Callable[[int, str], LoopbackServer], name: str, backend: str
) -> None:
    server = refusing(*TOO_LARGE[name])
    serving: Serving = OpenAIServing(server.base_url, "any", box_format="xyxy_px")
    if backend == "gemini":
        serving = GeminiServing(base_url=server.address, api_key="any", box_format="xyxy_px")
    assert len(ground(picture, "the cat", serving=serving, check_every=None)) == 1
    assert (server.received, server.count(200)) == (2, 1)


def test_after_another_refusal_no_other_picture_is_sent(
    picture: str, refusing: Callable[[int, str], LoopbackServer]
) -> None:
    server = refusing(*OTHER["pixels"])
    serving = OpenAIServing(server.base_url, "any", box_format="xyxy_px")
    with pytest.raises(GroundingError, match="answered"):
        ground(picture, "the cat", serving=serving, check_every=None)
    refused = {request.image_digests for request in server.requests if in_base64(request) > 9999}
    assert len(refused) == 1
