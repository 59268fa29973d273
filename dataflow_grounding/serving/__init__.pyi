"""What `serving` has, and where each stands; nothing is imported before it is used."""

from .gemini import GeminiServing as GeminiServing
from .local import LocalServing as LocalServing
from .openai_compatible import OpenAIServing as OpenAIServing
from .openai_sdk import OpenAISdkServing as OpenAISdkServing
from .serving import Reply as Reply
from .serving import Serving as Serving
from .serving import Usage as Usage
from .serving import check_counts as check_counts
from .serving import usable_key as usable_key
from .several import SeveralEndpoints as SeveralEndpoints
