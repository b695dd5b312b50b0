"""A tiny Hugging Face model of random weights, and bundles whose probe reads it."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.guard.bundle.interface import (
    MANIFEST,
    SIGNATURE,
    Manifest,
    ProbeCanary,
    ProbeRecord,
)
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.bundle.write import array_file, write_bundle
from safehold.guard.scorers.probe import LinearProbe, ProbeHead
from safehold.guard.served.interface import Said
from safehold.guard.served.model import HfModel
from safehold.guard.session.cascade import Thresholds

HOT = "z"
"""The character that `letter_probe` listens for."""
GOLDEN = (
    b'{"prompt":"Say it.","reply":"a quiet morning","blocked":false}\n'
    b'{"prompt":"Say it.","reply":"zzzzzzzzzzzz","blocked":true}\n'
)
"""Exchanges that a guard with the letter probe judges so."""
_BYTES = 256
_END = "<end>"
_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_model(folder: Path, *, seed: int = 0, layers: int = 2, hidden: int = 32) -> Path:
    """Write a Llama of random weights whose tokens are bytes; return its folder.

    It writes nonsense, but it is a real model: safetensors, a tokenizer and a chat template.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(alphabet)} | {_END: _BYTES}
    tokenizer: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END)
    wrapped.chat_template = _TEMPLATE
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=_BYTES + 1,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=_BYTES,
        bos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def letter_probe(model: HfModel, *, layer: int = 0) -> LinearProbe:
    """Return a probe that hears the letter z: on the embeddings exactly, 6 for it and -2 else."""
    letters = "abcdefghijklmnopqrstuvwxy .,"
    others = model.read([Said("user", "a")], letters, [layer]).activations
    hot = model.read([Said("user", "a")], HOT, [layer]).activations[0]
    inputs = np.concatenate([others, hot[None, :]])
    targets = np.array([-2.0] * len(others) + [6.0])
    weights, *_ = np.linalg.lstsq(
        np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1), targets
    )
    head = ProbeHead(weights[:-1].astype(np.float32), float(weights[-1]), bias=0.0, floor=8)
    return LinearProbe("letters", head, (layer,), "beer-production")


def write_probed(
    folder: Path,
    model: HfModel,
    key: Ed25519PrivateKey | None = None,
    golden: bytes = GOLDEN,
    **changes: object,
) -> str:
    """Write the stock bundle with the letter probe deciding about replies; return its digest.

    `changes` are fields of the probe's record.
    """
    stock, _ = stock_bundle()
    manifest = msgspec.json.decode((stock / MANIFEST).read_bytes(), type=Manifest)
    probe = letter_probe(model)
    canaries = [
        ProbeCanary("Say it.", text, _highest(model, probe, "Say it.", text))
        for text in ("a quiet morning", "zzzzzzzz")
    ]
    record = ProbeRecord(
        name=probe.name,
        file="probe.npy",
        layers=probe.layers,
        shift=probe.head.shift,
        bias=probe.head.bias,
        floor=probe.head.floor,
        clause=probe.clause,
        dtype=model.dtype,
        escalate=0.0,
        weight=1.0,
        canaries="canaries.jsonl",
        tolerance=0.05,
    )
    files = {
        path.name: path.read_bytes()
        for path in stock.iterdir()
        if path.name not in (MANIFEST, SIGNATURE)
    }
    files["probe.npy"] = array_file(probe.head.weights)
    files["canaries.jsonl"] = b"".join(msgspec.json.encode(one) + b"\n" for one in canaries)
    files[manifest.golden] = golden
    manifest = msgspec.structs.replace(
        manifest,
        name="probed",
        model_digest=model.digest,
        probe=msgspec.structs.replace(record, **changes),
        reply=Thresholds(escalate=1e6, weights=(0.0, 0.0, 0.0), block=0.0, alone=1e6),
    )
    return write_bundle(folder, manifest, files, key)


def _highest(model: HfModel, probe: LinearProbe, prompt: str, reply: str) -> float:
    reading = model.read([Said("user", prompt)], reply, probe.layers)
    return probe.open_reply().feed(probe.logits(reading.activations))
