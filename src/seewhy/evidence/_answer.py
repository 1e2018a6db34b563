"""A prompt with its answer: generated or given, and laid out so that one forward scores all of its tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from seewhy.engine.session import Session
from seewhy.errors import InputError, MethodError, TargetError
from seewhy.inputs.prompted import Prompted
from seewhy.targets.tokens import Spoken, Token


def answered(run: Session, target: Token, tokenizer: Any = None) -> tuple[Prompted, Spoken]:
    """The call of a session with an answer after its prompts, and the tokens of it that are asked about.

    Args:
        run: the session of a prompt.
        target: which tokens, and of what answer.
        tokenizer: to be used where the target brings none.

    Raises:
        InputError: for prompts that are filled up on the right.
        TargetError: where there is no answer, or it does not have the tokens.
        MethodError: where a model cannot be given an answer without looking ahead in it.
    """
    call = run.call
    assert isinstance(call, Prompted)
    attended = call.kwargs.get("attention_mask")
    if isinstance(attended, Tensor) and attended.ndim == 2 and not bool(attended[:, -1].all()):
        raise InputError(
            "an answer cannot follow prompts that are filled up on the right.",
            got="an attention_mask that ends in 0",
            do='processor(..., padding=True, padding_side="left")',
        )
    ids, lengths = _answer(run, call, target, tokenizer)
    encoded = _encodes(run.model)
    spoken = target.spoken(ids, lengths, ahead=0 if encoded else 1, tokenizer=tokenizer)
    if encoded:
        start = torch.full_like(ids[:, :1], _start(run.model))
        made = {"decoder_input_ids": torch.cat([start, ids[:, :-1]], 1)}
        return replace(call, kwargs=call.kwargs | made | _quietly(run.model)), spoken
    for kind in (0, 1):  # what a model calls tokens that are text: it may see all of a prompt, but not of an answer
        found = replace(call, kwargs=_continued(call, ids, lengths, kind) | _quietly(run.model, ids.shape[1] + 1))
        if not _typed(call) or not _looks_ahead(run, found, spoken):
            return found, spoken
    raise MethodError(
        "the model looks ahead in the answer that it is given.",
        got=", ".join(_typed(call)),
        expected="token types by which the answer follows the prompt",
        do="explain the first token alone: Token(0)",
    )


def _answer(run: Session, call: Prompted, target: Token, tokenizer: Any) -> tuple[Int[Tensor, "B n"], list[int]]:
    """The tokens of the answer, and how many of them count in each row."""
    device, given = call.ids.device, target.of
    if isinstance(given, str) and given == "generated":
        return _generated(run, call, target.length)
    if isinstance(given, str):
        tokenizer = target.tokenizer or tokenizer
        if tokenizer is None:
            raise TargetError(
                "an answer in words needs the model's tokenizer.",
                got=repr(given),
                do="Token(..., of=text, tokenizer=processor), or pass the answer's tokens as of=",
            )
        given = getattr(tokenizer, "tokenizer", tokenizer)(given, add_special_tokens=False)["input_ids"]
    ids = torch.as_tensor(given, device=device).long()
    ids = ids.expand(call.batch, -1) if ids.ndim == 1 else ids
    if ids.ndim != 2 or len(ids) != call.batch or not ids.shape[1]:
        raise TargetError(
            "this is no answer to the prompts.",
            got=f"tokens of shape {tuple(ids.shape)} for {call.batch} prompt{'s'[: call.batch != 1]}",
            expected=f"(n,) or ({call.batch}, n), with n > 0",
        )
    return ids, [ids.shape[1]] * call.batch


def _generated(run: Session, call: Prompted, length: int) -> tuple[Int[Tensor, "B n"], list[int]]:
    """What the model answers by itself, the most likely token each time."""
    model: Any = run.model
    if not hasattr(model, "generate"):
        raise TargetError(
            "the model does not generate text.",
            got=type(model).__name__,
            do="pass the answer: Token(..., of=text or tokens)",
        )
    with run.aside(), torch.no_grad():
        found = model.generate(**call.with_rows(Tensor.clone).kwargs, max_new_tokens=length, do_sample=False)
    ids: Tensor = found if isinstance(found, Tensor) else found.sequences
    if ids.shape[1] >= call.length and bool((ids[:, : call.length] == call.ids).all()):
        ids = ids[:, call.length :]
    elif _encodes(model):
        ids = ids[:, 1:]
    ends = _ends(model)
    lengths = [next((n for n, token in enumerate(row) if token in ends), len(row)) for row in ids.tolist()]
    if not all(lengths):
        raise TargetError(
            "the model answers nothing.", got="an answer that ends at once", do="pass the answer: Token(..., of=text)"
        )
    return ids[:, : max(lengths)].clone(), lengths


def _ends(model: Any) -> set[int]:
    """The tokens that end an answer."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return set(found) if isinstance(found, list | tuple) else {found} if found is not None else set()


def _encodes(model: nn.Module) -> bool:
    """Whether the prompt goes into an encoder, and the answer into a decoder beside it."""
    config: Any = getattr(model, "config", None)
    inner = getattr(config, "text_config", None)
    return bool(getattr(config, "is_encoder_decoder", False) or getattr(inner, "is_encoder_decoder", False))


def _start(model: Any) -> int:
    """The token that a decoder begins with."""
    places = [getattr(model, "generation_config", None), model.config, getattr(model.config, "text_config", None)]
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        for place in places:
            if (found := getattr(place, name, None)) is not None:
                return int(found)
    raise TargetError("the model does not say which token its decoder begins with.", expected="decoder_start_token_id")


def _quietly(model: nn.Module, keep: int = 0) -> dict[str, Any]:
    """Keywords with which a forward keeps no more than is looked at, as far as the model takes them."""
    taken = inspect.signature(model.forward).parameters
    more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    found: dict[str, Any] = {"use_cache": False} if more or "use_cache" in taken else {}
    return found | ({"logits_to_keep": keep} if keep and "logits_to_keep" in taken else {})


def _typed(call: Prompted) -> list[str]:
    """The keywords that say of each token of the prompt of what kind it is."""
    plain = ("input_ids", "attention_mask")
    return [
        key
        for key, value in call.kwargs.items()
        if isinstance(value, Tensor) and value.shape == call.ids.shape and key not in plain
    ]


def _continued(call: Prompted, ids: Int[Tensor, "B n"], lengths: Sequence[int], kind: int) -> dict[str, Any]:
    """The keywords for prompt and answer."""
    there = torch.arange(ids.shape[1], device=ids.device) < torch.tensor(lengths, device=ids.device)[:, None]
    added: dict[str, Tensor] = {"input_ids": ids, "attention_mask": there}
    added |= {key: torch.full_like(ids, kind) for key in _typed(call)}
    return call.kwargs | {
        key: torch.cat([call.kwargs[key], more.to(call.kwargs[key])], 1)
        for key, more in added.items()
        if isinstance(call.kwargs.get(key), Tensor)
    }


def _looks_ahead(run: Session, call: Prompted, spoken: Spoken) -> bool:
    """Whether a token's own score changes what is predicted in its place."""
    other = call.kwargs["input_ids"].clone()
    other[:, -1] = call.kwargs["input_ids"][:, 0]
    with run.aside(), torch.no_grad():
        before, after = (
            run.run(replace(call, kwargs=call.kwargs | {"input_ids": ids})) for ids in (call.kwargs["input_ids"], other)
        )
    first, second = (spoken._logits(found) for found in (before, after))
    return not torch.allclose(first, second, atol=float(first.std()) * 1e-3, rtol=0)
