"""What `serving` has, and where each stands; nothing is imported before it is used."""

from .base import Reply as Reply
from .base import Serving as Serving
from .base import Usage as Usage
from .gemini import GeminiServing as GeminiServing
from .local import LocalServing as LocalServing
from .openai_compatible import OpenAIServing as OpenAIServing
from .openai_sdk import OpenAISdkServing as OpenAISdkServing
from .recorded import RecordedServing as RecordedServing
from .several import SeveralEndpoints as SeveralEndpoints
