"""The finish reasons that spoil a reply, in lower case. Any other word leaves the reply as it is.

Endpoints have words of their own, and gateways pass them on: Google's endpoint with OpenAI's
interface has Gemini's (HKUDS/Vibe-Trading pull request 308). The sources are the pages on chat
completions of OpenAI, z.ai (docs.z.ai/api-reference/llm/chat-completion), DeepSeek
(api-docs.deepseek.com/api/create-chat-completion) and watsonx (TextChatResultChoice), Anthropic's
on stop reasons, Bedrock's on Converse, Gemini's (ai.google.dev/api/generate-content#FinishReason),
Cohere's on chat, TensorRT-LLM's on CompletionOutput; vLLM's, SGLang's and OpenRouter's code.
"""

CUT_OFF = frozenset(
    ["length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"]
)
"""The reply ends at a limit of tokens. It is whole all the same if its JSON is."""

BROKEN_OFF = frozenset(
    [
        "abort",
        "cancelled",
        "error",
        "error_finish",
        "insufficient_system_resource",
        "malformed_function_call",
        "malformed_model_output",
        "malformed_response",
        "network_error",
        "time_limit",
        "timeout",
    ]
)
"""The server broke off: the same request may be answered later."""

BLOCKED = frozenset(
    [
        "blocklist",
        "content_filter",
        "content_filtered",
        "error_toxic",
        "guardrail_intervened",
        "image_prohibited_content",
        "image_recitation",
        "image_safety",
        "language",
        "model_armor",
        "prohibited_content",
        "recitation",
        "refusal",
        "safety",
        "sensitive",
        "spii",
    ]
)
"""The reply is held back or cut for its content: asking again changes nothing."""


def is_one_of(reason: object, reasons: frozenset[str]) -> bool:
    """Whether a reply's finish reason, perhaps no text, is one of these in any case."""
    return isinstance(reason, str) and reason.lower() in reasons
