"""What endpoints say of a picture that is too large, in public threads, and what is no such thing."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from dataflow_grounding import ground
from dataflow_grounding.serving import GeminiServing, OpenAIServing
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.faults import Fault

NGINX = "<html><head><title>413 Request Entity Too Large</title></head><body></body></html>"


class Said(NamedTuple):
    """An answer that refuses, and where it was reported."""

    status: int
    body: str
    source: str


def message(text: str) -> str:
    return json.dumps({"error": {"message": text}})


TOO_LARGE = {
    "Anthropic": Said(
        400,
        '{"type":"error","error":{"type":"invalid_request_error","message":"messages.0.content.2.'
        'image.source.base64: image exceeds 5 MB maximum: 15908784 bytes > 5242880 bytes"}}',
        "https://github.com/anthropics/claude-code/issues/10612",
    ),
    "Bedrock": Said(
        400,
        message(
            "The model returned the following errors: messages.0.content.2.image.source.bytes:"
            " image exceeds 5 MB maximum: 7167852 bytes > 5242880 bytes"
        ),
        "https://github.com/aws-solutions-library-samples/"
        "accelerated-intelligent-document-processing-on-aws/issues/778",
    ),
    "Gemini": Said(
        400,
        message("Request payload size exceeds the limit: 4194304 bytes."),
        "https://github.com/google-gemini/deprecated-generative-ai-android/issues/26",
    ),
    "DashScope": Said(
        400,
        message("Exceeded limit on max bytes per data-uri item : 10485760"),
        "https://github.com/QwenLM/qwen-code/issues/1880",
    ),
    "OpenRouter": Said(
        413,
        '{"error":{"message":"Downloaded image content cannot exceed 30MB","code":413}}',
        "https://github.com/artokun/comfyui-mcp/issues/2221",
    ),
    "TGI": Said(
        413,
        "Failed to buffer the request body: length limit exceeded",
        "https://github.com/huggingface/text-generation-inference/issues/1802",
    ),
    "a gateway": Said(
        413,
        '{"detail":"Request body too large"}',
        "https://github.com/agent0ai/agent-zero/issues/1857",
    ),
    "another gateway": Said(
        413,
        '{"error":{"message":"Request payload is too large","type":"invalidrequesterror"}}',
        "https://github.com/MayDay-wpf/snow-app/issues/113",
    ),
    "Copilot": Said(
        413, "413 Request Entity Too Large\n", "https://github.com/github/copilot-cli/issues/965"
    ),
    "nginx": Said(413, NGINX, "https://github.com/bangumi/server-private/issues/1617"),
    "Claude by OpenCode": Said(
        413,
        '{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}',
        "https://github.com/anomalyco/opencode/issues/12060",
    ),
    "SGLang": Said(
        422, "payload reached size limit", "https://github.com/sgl-project/sglang/issues/6622"
    ),
    "Azure": Said(
        400,
        message("The image size must be greater than zero and cannot exceed 20971520 bytes."),
        "https://portkey.ai/error-library/input-size-error-10044",
    ),
    "DashScope's files": Said(
        400,
        '{"error":{"code":"invalid_parameter_error","message":"Multimodal file size is too large"}}',
        "https://github.com/DreamMr/HR-Bench/issues/6",
    ),
    "Gemini's files": Said(
        400,
        message("The request's total referenced files bytes are too large to be read"),
        "https://github.com/google-gemini/deprecated-generative-ai-python/issues/695",
    ),
    "new-api": Said(
        400,
        message("get file base64 from url failed: file size exceeds maximum allowed size: 20MB"),
        "https://github.com/QuantumNous/new-api/issues/958",
    ),
    "the same with 404": Said(
        404,
        message("messages.58.content.2.image.source.base64: image exceeds 5 MB maximum"),
        "https://github.com/gptme/gptme/issues/185",
    ),
}
OTHER = {
    "tokens a minute": Said(
        413,
        message(
            "Request too large for model `llama-3.3-70b-versatile` on tokens per minute (TPM):"
            " Limit 12000, Requested 14137, please reduce your message size and try again."
        ),
        "https://github.com/continuedev/continue/issues/10218",
    ),
    "vLLM's context": Said(
        400,
        message(
            "This model's maximum context length is 3744 tokens. However, you requested 254457"
            " tokens (254201 in the messages, 256 in the completion). Please reduce the length of"
            " the messages or completion."
        ),
        "https://github.com/vllm-project/vllm/issues/6301",
    ),
    "vLLM's image tokens": Said(
        400,
        message(
            "The prompt (total length 25938) is too long to fit into the model (context length"
            " 4096). Make sure that `max_model_len` is no smaller than the number of text tokens"
            " plus multimodal tokens. For image inputs, the number of image tokens depends on the"
            " number of images, and possibly their aspect ratios as well."
        ),
        "https://github.com/vllm-project/vllm/issues/12165",
    ),
    "Claude's context": Said(
        400,
        message("prompt is too long: 208310 tokens > 200000 maximum"),
        "https://github.com/anthropics/claude-code/issues/12186",
    ),
    "pixels": Said(
        400,
        message(
            "messages.7.content.2.image.source.base64.data: At least one of the image dimensions"
            " exceed max allowed size: 8000 pixels"
        ),
        "https://github.com/anthropics/claude-code/issues/4778",
    ),
    "Bedrock's pixels": Said(
        400,
        message("Image exceeds max pixels allowed."),
        "https://github.com/aws-samples/video-semantic-search-with-aws-ai-ml-services/issues/4",
    ),
    "megapixels": Said(
        400,
        message("Image too large. Please limit to 75 megapixels."),
        "https://github.com/openfoodfacts/openfoodfacts-server/issues/10764",
    ),
    "too narrow": Said(
        400,
        message(
            "<400> InternalError.Algo.InvalidParameter: The image length and width do not meet the"
            " model restrictions. [height:400 or width:1 must be larger than 10]"
        ),
        "https://github.com/QwenLM/qwen-code/issues/2505",
    ),
    "no data URL": Said(
        400,
        message("'data:image/jpeg;base64,/9j/4AAQSkZJRgABAQ...' is not a valid absolute URI"),
        "https://github.com/openai/openai-python/issues/3551",
    ),
    "no such path": Said(
        404,
        '{"message":"Cannot POST /v1/chat/completions","error":"Not Found","statusCode":404}',
        "https://github.com/mnfst/llm-gateway/issues/2126",
    ),
    "how many images": Said(
        400,
        message("At most 1 image(s) may be provided in one request."),
        "https://github.com/vllm-project/vllm/issues/13397",
    ),
    "an image count": Said(
        400,
        message("Image count 5 exceeds limit 4 per request."),
        "https://github.com/AgnesAI-Labs/AgnesCode/issues/50",
    ),
    "images contained": Said(
        400,
        message("request contains 52 images, exceeding the maximum of 50 allowed per request"),
        "https://github.com/anomalyco/opencode/issues/48647",
    ),
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of noise with 300 KB, 400 in base64."""
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    noise = random.Random(0).randbytes(400 * 250 * 3)
    Image.frombytes("RGB", (400, 250), noise).save(path, compress_level=0)
    return path


def in_base64(request: ReceivedRequest) -> int:
    return sum(4 * -(-image.size // 3) for image in request.images)


def refusing(said: Said) -> LoopbackServer:
    fault = Fault(said.status, body=said.body.encode())
    rule = on(fault, where=lambda request: in_base64(request) > 300_000)
    return LoopbackServer(faults=rule)


@pytest.mark.parametrize("said", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_picture_that_is_refused_as_too_large_is_reduced_once(picture: Path, said: Said) -> None:
    with refusing(said) as server:
        serving = OpenAIServing(server.base_url, "any", api_key="any", box_format="xyxy_px")
        assert len(ground(str(picture), "the cat", serving=serving, check_every=None)) == 1
        assert server.count(said.status) == 1
        assert server.received == 2


@pytest.mark.parametrize("said", OTHER.values(), ids=OTHER)
def test_no_other_refusal_is_taken_for_one(picture: Path, said: Said) -> None:
    with refusing(said) as server:
        serving = OpenAIServing(server.base_url, "any", api_key="any", box_format="xyxy_px")
        with pytest.raises(Exception, match="answered"):
            ground(str(picture), "the cat", serving=serving, check_every=None)
        refused = {
            request.image_digests for request in server.requests if in_base64(request) > 9999
        }
        assert len(refused) == 1  # no other picture was sent


@pytest.mark.slow
def test_gemini_s_refusal_is_understood_too(picture: Path) -> None:
    with refusing(TOO_LARGE["Gemini"]) as server:
        serving = GeminiServing(base_url=server.address, api_key="any", box_format="xyxy_px")
        assert len(ground(str(picture), "the cat", serving=serving, check_every=None)) == 1
        assert server.received == 2
