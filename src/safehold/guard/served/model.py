"""A Hugging Face model in this process: its weights pinned by digest, its hidden states readable.

Loads safetensors or GGUF from the disk, never code and never anything from a network. Needs the
extra `torch`.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from safehold.errors import BundleError, ConfigError, DependencyError
from safehold.guard.interface import Heard
from safehold.guard.scorers.interface import Activations, ActivationScorer
from safehold.guard.served.interface import Reading, Said

_READ = frozenset({".safetensors", ".json", ".model", ".txt", ".jinja"})
_DTYPES = ("bfloat16", "float32")
_NOT_YET = "\ufffd"
_PART_BYTES = 1 << 20


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is chosen; `temperature` 0 takes the likeliest."""

    most: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Spoken(msgspec.Struct, frozen=True):
    """Text that the model wrote: how many tokens made it, and what a probe heard of each."""

    text: str
    tokens: int
    heard: Heard


class Retraced(msgspec.Struct, frozen=True):
    """A reply generated again from its seed, with the reply's own tokens as what came before.

    `agreed` of `tokens` came out the same. For each other, `choices` says how many tokens had a
    chance of at least one in a thousand there (all of the vocabulary when the reply's own had not).
    """

    tokens: int
    agreed: int
    choices: tuple[int, ...]


_PLAUSIBLE = 0.001


def model_digest(path: Path) -> str:
    """Return the SHA-256 of a GGUF file, or of the names and digests of a folder's files.

    Raises:
        ConfigError: There is nothing that a model could be loaded from.
    """
    if path.is_file():
        return _sha256(path)
    files = sorted(one for one in path.glob("*") if one.is_file() and one.suffix in _READ)
    if not any(one.suffix == ".safetensors" for one in files):
        raise ConfigError(f"{path}: expected a GGUF file, or a folder with safetensors")
    lines = "".join(f"{one.name} {_sha256(one)}\n" for one in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()


class HfModel:
    """A causal language model that says what it thinks while it reads or writes."""

    def __init__(self, path: Path, *, dtype: str = "bfloat16", threads: int = 1) -> None:
        """Load a model and its tokenizer.

        Raises:
            ConfigError: The path holds no model that can be loaded without running its code.
            DependencyError: The extra `torch` is not installed.
        """
        if dtype not in _DTYPES:
            raise ConfigError(f"dtype: expected one of {', '.join(_DTYPES)}")
        self.digest = model_digest(path)
        self.dtype = dtype
        for name in ("HF_HUB_OFFLINE", "TQDM_DISABLE"):  # the libraries read these at their import
            os.environ.setdefault(name, "1")
        try:
            import torch
            import transformers
        except ModuleNotFoundError as error:
            raise DependencyError(
                "a Hugging Face model needs: pip install 'safehold[torch]'"
            ) from error
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        folder, named = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
        local: dict[str, Any] = {**named, "local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **local)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, **local
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigError(f"{path.name}: not a model that can be loaded as data") from error
        self._torch: Any = torch
        self._model = model.eval()
        self._new_cache: Any = transformers.DynamicCache
        config = model.config
        self.states: int = config.num_hidden_layers + 1
        """Hidden states there are: the embeddings' and one for each layer."""
        self.width: int = config.hidden_size
        self.context: int = min(getattr(config, "max_position_embeddings", 2048), 2048)
        ends = getattr(model.generation_config, "eos_token_id", None)
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = {end for end in (*ends, self._tokenizer.eos_token_id) if end is not None}

    def prompt(self, said: Sequence[Said]) -> list[int]:
        """Return the tokens of a conversation up to where the model is to answer.

        Raises:
            ConfigError: The model has no chat template, or its template can't take these turns.
        """
        messages = [{"role": one.role, "content": one.content} for one in said]
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except (ValueError, TypeError) as error:
            raise ConfigError("the model's chat template can't take these turns") from error
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def read(self, said: Sequence[Said], reply: str, layers: Sequence[int]) -> Reading:
        """Return the activations of a reply to what was said, in the hidden states `layers`.

        A conversation longer than the context keeps its end; so does a reply keep its beginning.

        Raises:
            BundleError: The model has no such hidden state.
        """
        pieces, ids = self._cut(reply)
        room = self.context - min(len(ids), self.context // 2)
        before = self.prompt(said)[-room:]
        ids = ids[: self.context - len(before)]
        pieces = (*pieces[: len(ids) - 1], "".join(pieces[len(ids) - 1 :])) if ids else ()
        states = self._states([*before, *ids], layers)
        return Reading(tuple(pieces), states[len(before) :])

    def _cut(self, text: str) -> tuple[tuple[str, ...], list[int]]:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pieces: list[str] = []
        at = 0
        for _, end in encoded["offset_mapping"]:
            pieces.append(text[at : max(at, end)])
            at = max(at, end)
        if pieces:
            pieces[-1] += text[at:]
        return tuple(pieces), encoded["input_ids"]

    def _states(self, ids: Sequence[int], layers: Sequence[int]) -> Activations:
        torch = self._torch
        with torch.inference_mode():
            found = self._model.model(
                torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False
            )
            return self._picked(found.hidden_states, layers)

    def _picked(self, states: Sequence[Any], layers: Sequence[int]) -> Activations:
        if not layers or not all(0 <= layer < len(states) for layer in layers):
            raise BundleError(
                f"the model has hidden states 0 to {len(states) - 1}, not those asked"
            )
        joined = self._torch.cat([states[layer][0] for layer in layers], dim=-1)
        found: Activations = joined.float().numpy().astype(np.float32, copy=False)
        return found

    def write(
        self, said: Sequence[Said], sampling: Sampling, probe: ActivationScorer | None
    ) -> Iterator[Spoken]:
        """Yield what the model answers; each text comes with what the probe heard of its tokens.

        A token's activations exist once the model has read it, so text is one step behind.

        Raises:
            ConfigError: The conversation leaves no room for an answer.
            BundleError: The model has no such hidden state.
        """
        torch = self._torch
        ids = self.prompt(said)
        most = min(sampling.most, self.context - len(ids))
        if most < 1:
            raise ConfigError(f"the conversation has {len(ids)} tokens of {self.context}")
        random = torch.Generator().manual_seed(sampling.seed)
        written: list[int] = []
        heard: list[float] = []
        shown, waiting = "", 0
        memory: Any = self._new_cache(config=self._model.config)
        step = torch.tensor([ids])
        while True:
            with torch.inference_mode():
                found = self._model(
                    step,
                    cache=memory,
                    output_hidden_states=probe is not None,
                    logits_to_keep=1,
                    use_cache=True,
                )
            token = self._next(found.logits[0, -1].float(), sampling, random)
            ended = token in self._ends or len(written) >= most
            if written:
                waiting += 1
                if probe is not None:
                    heard += probe.logits(self._picked(found.hidden_states, probe.layers))
                text: str = self._tokenizer.decode(written)
                if ended or not text.endswith(_NOT_YET):
                    yield Spoken(text[len(shown) :], waiting, tuple(heard))
                    shown, waiting, heard = text, 0, []
            if ended:
                return
            written.append(token)
            step = torch.tensor([[token]])

    def retrace(self, said: Sequence[Said], reply: str, sampling: Sampling) -> Retraced:
        """Generate a reply again with the same seed and say where it was given otherwise.

        Text that its tokenizer would cut otherwise counts as given otherwise: never too low.
        """
        torch = self._torch
        ids = self.prompt(said)
        given = self._cut(reply)[1][: max(0, self.context - len(ids))]
        random = torch.Generator().manual_seed(sampling.seed)
        choices: list[int] = []
        memory: Any = self._new_cache(config=self._model.config)
        step = torch.tensor([ids])
        for token in given:
            with torch.inference_mode():
                found = self._model(step, cache=memory, logits_to_keep=1, use_cache=True)
            logits = found.logits[0, -1].float()
            if self._next(logits, sampling, random) != token:
                chances = (logits / (sampling.temperature or 1.0)).softmax(dim=-1)
                plausible = chances >= _PLAUSIBLE
                known = bool(plausible[token])
                choices.append(int(plausible.sum()) if known else int(chances.numel()))
            step = torch.tensor([[token]])
        return Retraced(len(given), len(given) - len(choices), tuple(choices))

    def _next(self, logits: Any, sampling: Sampling, random: Any) -> int:
        if sampling.temperature <= 0:
            return int(logits.argmax())
        chances = (logits / sampling.temperature).softmax(dim=-1)
        if sampling.top_p < 1:
            ordered, places = chances.sort(descending=True)
            ordered[ordered.cumsum(0) - ordered > sampling.top_p] = 0
            return int(places[self._torch.multinomial(ordered, 1, generator=random)])
        return int(self._torch.multinomial(chances, 1, generator=random))
