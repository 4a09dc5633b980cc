"""What the page leaves out, because a part of the model does not name the modules to show."""

from __future__ import annotations

from detr_d2.apps.explain.explanation import Explanation

_NO_QUERY = "No query is kept, and the mask head did not run all its parts"


def left_out(explanation: Explanation) -> dict[str, str]:
    """Says what is left out, and why, in one sentence each.

    Returns:
        Sentences under "encoder" and "decoder" (their attention), "attention_maps" and "stages" (of
        the mask head); a key is missing where nothing is left out.
    """
    sentences = {}
    if not explanation.encoder_attention:
        sentences["encoder"] = _attention_sentence(explanation, "encoder")
    if not explanation.decoder_attention:
        sentences["decoder"] = _attention_sentence(explanation, "decoder")
    if explanation.masks is None:
        return sentences
    named = explanation.masks.named
    if explanation.masks.embedded is not None:  # shown in place of maps and stages
        return sentences
    if explanation.masks.attention_maps is None:
        reason = "This mask head names no module that gives attention maps"
        reason = reason if named.attention_maps is None else _NO_QUERY
        sentences["attention_maps"] = f"{reason}, so attention maps are not shown."
    if not explanation.masks.stages:
        reason = _NO_QUERY if named.stages else "This mask head names no stages"
        sentences["stages"] = f"{reason}, so only its mask logits are shown."
    return sentences


def _attention_sentence(explanation: Explanation, kind: str) -> str:
    named = explanation.model.detector.transformer.explained_attention()
    reason = f"names no attention modules of its {kind}"
    if kind in named:  # with an empty list
        reason = f"has no {kind} layers"
        if kind == "encoder":
            reason += ", as with MODEL.DETR.ENC_LAYERS 0"
    return f"This transformer {reason}, so the {kind}’s attention is not shown."
