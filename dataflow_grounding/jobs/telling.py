"""What a spec tells the operators of any pipeline, its own or a user's: how to put their questions,
and how their boxes are watched. All else that operators get are arguments of the pipeline's class.
"""

from collections.abc import Sequence

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.classes import definitions_of
from dataflow_grounding.operators import BoxChecker, Operator
from dataflow_grounding.operators.box_operator import BoxWatching
from dataflow_grounding.serving.serving import Serving, check_can_think
from dataflow_grounding.spec import PipelineBlock, VlmBlock
from dataflow_grounding.tasks.ways_to_ask import AskingForm, form_of
from dataflow_grounding.tasks.wording import Wording, read_prompts
from dataflow_grounding.trust.box_watch import BoxWatch


def tell(operators: Sequence[Operator], block: PipelineBlock, servings: Sequence[Serving]) -> None:
    """Tell operators what a block states; their own words stay, and all that it doesn't state."""
    prompts = read_prompts(block.prompts.dir) if block.prompts.dir else {}
    stated = block.data.model_dump(include={"glossary", "classes"})
    definitions = {**stated.get("glossary", {}), **definitions_of(stated.get("classes", ()))}
    words = Wording(prompts, block.workflow.guidance, definitions)
    forms = _forms_of_asking(block.vlms, servings)
    for operator in operators:
        _tell_words(operator, words, forms.get(id(operator.serving)))
        _tell_of_checks(operator, block.vlm)


def _forms_of_asking(
    vlms: Sequence[VlmBlock], servings: Sequence[Serving]
) -> dict[int, AskingForm]:
    """Return forms by the id() of a serving."""
    forms = {}
    for serving, vlm in zip(servings, vlms, strict=True):
        if vlm.asking == "auto":
            continue
        try:
            forms[id(serving)] = form_of(vlm.asking)  # the last one counts for a shared serving
        except SpecError as error:
            raise SpecError(f"vlm.asking: {error}") from None
    return forms


def _tell_words(operator: Operator, spec_words: Wording, spec_form: AskingForm | None) -> None:
    """Set the operator's wording: its own words, by `with_words`, come before the spec's."""
    own = operator.wording or Wording()
    wording = Wording(
        prompts={**spec_words.prompts, **own.prompts},
        guidance=own.guidance or spec_words.guidance,
        definitions={**spec_words.definitions, **own.definitions},
        asking=own.asking or spec_form,
    )
    # Raises SpecError if the form says whether to think, and this model can't be told that.
    check_can_think(operator.serving, wording.asking)
    if wording:  # it has any words, or a form
        operator.wording = wording


def _tell_of_checks(operator: Operator, vlm: VlmBlock) -> None:
    """Set how often, and with what consequence, an operator's boxes are checked."""
    if isinstance(operator, BoxChecker) and vlm.check_every is None:
        # A judge's own `check_every` says how often it gets a false box. The spec's number says
        # how often a probe is sent, so it isn't taken over. Only null, for no checks, is.
        operator.check_every = None
    if isinstance(operator, BoxWatching):  # what isn't stated stays as the pipeline has set it
        on_suspect = operator.watch.on_suspect
        every = operator.watch.every
        if "on_suspect_boxes" in vlm.model_fields_set:
            on_suspect = vlm.on_suspect_boxes
        if "check_every" in vlm.model_fields_set:
            every = vlm.check_every
        operator.watch = BoxWatch(on_suspect, every)
