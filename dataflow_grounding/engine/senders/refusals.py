"""Refusals: of one record, such as a picture that a filter minds, or of all, as for a wrong key.

After REFUSED_IN_A_ROW of them a plain question tells.
"""

from dataflow_grounding._util import errors
from dataflow_grounding.engine.plain_questions import about_a_rectangle, sign_of_life
from dataflow_grounding.engine.senders.places import Places
from dataflow_grounding.engine.senders.question import Question
from dataflow_grounding.engine.senders.sender import Asked, PlainAsker
from dataflow_grounding.engine.senders.stored import keep_for_cost
from dataflow_grounding.engine.senders.traffic import Traffic
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.serving.serving import Reply

# requests refused with no answer between them, after which a plain question tells whose fault it is
REFUSED_IN_A_ROW = 10


class Refusals:
    """Tells a record's refusal, which it raises, from one of all requests, which stops the run."""

    def __init__(self, sender: Places, traffic: Traffic) -> None:
        self._next = sender
        self._traffic = traffic
        self._credit_refused = 0  # in a row
        self._question = Question(traffic, self._why_all_are_refused)

    async def send(self, asked: Asked) -> Reply:
        is_plain = isinstance(asked.by, PlainAsker)
        try:
            reply = await self._next.send(asked)
        except errors.NoCredit as error:
            self._credit_refused += 1
            # A single one may be about a request that costs more than is left.
            if not error.certain and self._credit_refused == 1:
                raise errors.CreditTooLow(str(error)) from None
            self._traffic.stop(error)
            raise
        except (errors.EndpointRefused, errors.RequestRefused) as error:
            if is_plain:
                raise
            refusal = error
        else:
            self._credit_refused = 0
            return reply
        with self._traffic.stopping():
            raise await self._meant(refusal, asked) from None

    async def _meant(
        self, error: errors.EndpointRefused | errors.RequestRefused, asked: Asked
    ) -> errors.GroundingError:
        """Return what a refusal means: a RequestRefused, or EndpointRefused.

        a RequestRefused, or of a content filter -> the record's
        `certain`: it can't be about this request alone, as a wrong key -> of all
        any other, if the endpoint has never answered -> of all: the key or the address is wrong
        any other, if it has -> the record's
        """
        traffic = self._traffic
        count = traffic.note_refusal()
        if is_about_content(str(error)):  # the filter has read the request: it works
            traffic.note_answer(0.0)
        elif isinstance(error, errors.EndpointRefused) and (
            error.certain or traffic.last_answer is None
        ):
            return errors.EndpointRefused(str(error))
        if count >= REFUSED_IN_A_ROW:
            why = await self._question.answer(asked, error, count)
            if why is not None:
                return why
        if isinstance(error, errors.RequestRefused):
            return error
        return errors.RequestRefused(str(error))

    async def _why_all_are_refused(
        self, asked: Asked, error: errors.EndpointRefused | errors.RequestRefused, count: int
    ) -> errors.EndpointRefused | None:
        """Ask a plain question; stop the run and return why if it is refused, too."""
        serving = self._next.serving
        is_in_words = asked.request.text_only
        question = sign_of_life() if is_in_words else about_a_rectangle(serving.image_limits)
        self._traffic.counts["probes"] += 1
        by = PlainAsker(asked.by.store, asked.by.step)
        try:
            reply = await self._next.send(Asked(question, by, is_check=True))
            keep_for_cost(reply, question, serving, by)
        except (errors.EndpointRefused, errors.RequestRefused) as again:
            why = again if isinstance(again, errors.NoCredit) else all_refused(error, count)
            self._traffic.stop(why)  # at once: others are let in as this one has been answered
            return why
        except errors.RunStopped:
            raise
        except Exception:
            # A fault tells nothing. A serving of the user's own may raise anything where it doesn't
            # know such a question.
            pass
        self._traffic.forget_refusals()
        return None


def all_refused(
    error: errors.EndpointRefused | errors.RequestRefused, count: int
) -> errors.EndpointRefused:
    """Return what stops the run after `count` refusals and that of a plain question."""
    return errors.EndpointRefused(
        f"{str(error).rstrip('.')}. {count} requests in a row were refused, and so was a plain"
        " question: check the key, the credit, the model and the settings"
    )
