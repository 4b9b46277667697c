"""`opengrit serve`: a page for people and an API for programs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from opengrit.cli import options
from opengrit.core.errors import RecipeError
from opengrit.core.output import settle_output

if TYPE_CHECKING:
    from opengrit.serving.app import ServeSettings
    from opengrit.serving.engine import Engine
    from opengrit.serving.examples import PageExamples

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")

_Model = Annotated[
    str | None,
    Argument(
        help=f"{options.MODEL_HELP} (default: {options.PACKAGED}); with --endpoint the model's name there."
    ),
]
_ModelOption = Annotated[str | None, options.model("--model", help="The same as MODEL.")]
_Compare = Annotated[
    str | None,
    options.model(metavar="MODEL", help="A second model; the page asks both and shows them side by side."),
]
_Name = Annotated[
    list[str] | None,
    options.model(
        help="The model's public name (default: its name, or its run's folder). Give it twice to name --compare's model too."
    ),
]
_Endpoint = Annotated[
    str | None,
    options.model(metavar="URL", help="Forward to an OpenAI-compatible server (vLLM): http://host:8000/v1."),
]
_access = partial(Option, rich_help_panel="Access")
_limit = partial(Option, rich_help_panel="Limits")
_EndpointKey = Annotated[
    str, options.model(metavar="VARIABLE", help="Environment variable that holds the endpoint's key.")
]
_Host = Annotated[
    str, _access(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 admits other machines.")
]
_Port = Annotated[int, _access(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
_ApiKeyEnv = Annotated[
    str | None,
    _access(metavar="VARIABLE", help="Environment variable that holds the key clients must send."),
]
_ApiKeyFile = Annotated[
    Path | None, _access(metavar="FILE", help="File that holds the key clients must send.")
]
_TrustHost = Annotated[
    list[str] | None,
    _access(
        metavar="HOST", help="Another name of this server (behind a proxy or a tunnel); may be repeated."
    ),
]
_AllowHost = Annotated[
    list[str] | None,
    _access(
        metavar="HOST",
        help="Host that picture addresses may be fetched from (default: none; never a private address); may be "
        "repeated.",
    ),
]
_MaxQueue = Annotated[int, _limit(min=0, help="Questions that may wait; the next gets 429 and Retry-After.")]
_MaxBatch = Annotated[int, _limit(min=1, help="Questions answered together.")]
_MaxLength = Annotated[
    int, _limit(metavar="TOKENS", min=1, help="Longest text a client may ask for, in tokens.")
]
_Deadline = Annotated[
    float,
    _limit(metavar="SECONDS", min=0.1, help="Seconds an answer may take, queueing included; then 504."),
]
_Grace = Annotated[
    float,
    _limit(metavar="SECONDS", min=0, help="Seconds to finish open answers after the server is told to stop."),
]
_Page = Annotated[bool, _access("--page/--no-page", help="Serve the page at /, or the API alone.")]


def serve(
    model: _Model = None,
    model_option: _ModelOption = None,
    compare: _Compare = None,
    name: _Name = None,
    endpoint: _Endpoint = None,
    endpoint_key_env: _EndpointKey = "OPENAI_API_KEY",
    frame: options.Frame = None,
    max_pixels: options.MaxPixels = None,
    strategy: options.Strategy = "grounded",
    system: options.System = None,
    host: _Host = "127.0.0.1",
    port: _Port = 7860,
    api_key_env: _ApiKeyEnv = None,
    api_key_file: _ApiKeyFile = None,
    trust_host: _TrustHost = None,
    allow_host: _AllowHost = None,
    page: _Page = True,
    max_queue: _MaxQueue = 64,
    max_batch: _MaxBatch = 32,
    max_new_tokens: _MaxLength = 4096,
    deadline: _Deadline = 120.0,
    grace: _Grace = 10.0,
) -> None:
    """Serve a model: a page for people at /, an API for programs at /v1.

    POST /v1/ground answers with boxes. POST /v1/chat/completions is OpenAI's API: the openai package, LangChain and others
    work with base_url http://127.0.0.1:7860/v1. /healthz reports whether the server is up, /metrics has counters for
    Prometheus. Questions that arrive together are answered together. Ctrl-C and SIGTERM let open answers finish.

    By default the server accepts this machine only and fetches nothing. If you set a key, programs send it as
    Authorization: Bearer KEY, and a browser asks for it as a password (any user name).

    Examples:

        opengrit serve mine/trained

        opengrit serve mine/trained --compare tiny-qwen2.5-vl

        MY_KEY=... opengrit serve mine/trained --host 0.0.0.0 --api-key-env MY_KEY

        opengrit serve my-3b --endpoint http://gpu:8000/v1 --frame qwen2_5_vl

        curl -F image=@photos/0001.jpg -F question="How many dogs are there?" \\
            http://127.0.0.1:7860/v1/ground
    """
    models = _models(model, model_option, compare)
    public = _public_names(name or [], count=len(models))
    check_installed(page)
    key = _api_key(api_key_env, api_key_file)
    settle_output()
    from opengrit.grounding.prompts import strategy_named
    from opengrit.serving.memory import give_memory_back
    from opengrit.serving.run import address, bind, run_until_stopped

    give_memory_back()
    how = dict[str, Any](frame=frame, max_pixels=max_pixels, max_queue=max_queue, max_batch=max_batch)
    asked_with = strategy_named(strategy)  # a prompt of one's own is read before a model loads
    listening = bind(host, port)  # a port that is taken is known before a model loads
    with tempfile.TemporaryDirectory(prefix="opengrit-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        make = _local if endpoint is None else partial(_remote, endpoint, endpoint_key_env)
        engines = _engines(models, public, partial(make, **how))
        from opengrit.serving.app import ServeSettings, build_app
        from opengrit.serving.security import Access

        settings = ServeSettings(
            access=Access.bound_to(host, api_key=key, trusted=trust_host or []),
            fetch_hosts=tuple(allow_host or ()),
            deadline_seconds=deadline,
            max_new_tokens=max_new_tokens,
            grace_seconds=grace,
            strategy=asked_with,
            system=system,
            only_stickers=_only_stickers(models, list(engines)) if endpoint is None else frozenset(),
            examples=_examples(models, list(engines)) if endpoint is None and page else None,
        )
        app = build_app(engines, settings, page=page)
        where = address(listening)
        run_until_stopped(
            app,
            listening,
            grace_seconds=grace,
            ready=lambda: _announce(where, engines, settings, page),
            clean_up=lambda: shutil.rmtree(folder, ignore_errors=True),
        )


def _models(model: str | None, option: str | None, compare: str | None) -> list[str | None]:
    """The models to serve, the one to compare with second; None is the default."""
    if model is not None and option is not None:
        raise RecipeError(f"the model is named once, got {model!r} and {option!r}; leave out one of them")
    return [model or option, *([compare] if compare else [])]


def _engines(models: list[str | None], public: list[str], make: Callable[..., Engine]) -> dict[str, Engine]:
    """The engines by their public names: those given, for the rest the models' own."""
    engines: dict[str, Engine] = {}
    for model, public_name in zip_longest(models, public):
        engine = make(model, public_name=public_name)
        if engines.setdefault(engine.name, engine) is not engine:
            raise RecipeError(
                f"two models have two names, both are called {engine.name!r}; compare another one, or name them with "
                "--name A --name B"
            )
    return engines


def _only_stickers(models: list[str | None], public: list[str]) -> frozenset[str]:
    """The public names of the packaged models and those trained from them."""
    from opengrit.models.sticker_models import knows_stickers_only

    named = zip(public, models, strict=True)
    return frozenset(name for name, model in named if knows_stickers_only(model or options.PACKAGED))


def _examples(models: list[str | None], public: list[str]) -> PageExamples | None:
    """Questions of the first model's run that has data of its own; None where none has."""
    from opengrit.serving.examples import run_examples
    from opengrit.serving.security import UploadLimits

    limits = UploadLimits().picture
    found = (run_examples(m, name=n, limits=limits) for n, m in zip(public, models, strict=True) if m)
    return next((examples for examples in found if examples), None)


def _announce(where: str, engines: dict[str, Engine], settings: ServeSettings, page: bool) -> None:
    typer.echo(f"serving {' and '.join(engines)} at {where} ({'page: /, ' if page else ''}API: /v1)")
    if settings.access.hosts is None and settings.access.api_key is None:
        typer.echo("anybody who reaches this port may ask; --api-key-env NAME asks for a key", err=True)


def check_installed(page: bool) -> None:
    """Nothing; raises RecipeError where a package is missing that a server needs, or with `page` its page."""
    missing = []
    for name in (*_NEEDED, *(["gradio"] if page else [])):
        try:
            import_module(name)
        except ModuleNotFoundError:
            missing.append(name)
    if missing:
        raise RecipeError(
            f"serving needs the extra serve, {', '.join(missing)} is not installed; run pip install 'opengrit[serve]'"
        )


def _api_key(name: str | None, file: Path | None) -> str | None:
    """The key in the variable or the file; None where neither is named. An empty key is an error, never no key."""
    if name is not None and file is not None:
        raise RecipeError(
            "the key stands in a variable or in a file, got --api-key-env and --api-key-file; leave out one of them"
        )
    if name is not None:
        key, place = os.environ.get(name, ""), f"the environment variable {name}"
    elif file is not None:
        try:
            key, place = file.read_text(encoding="utf-8"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"--api-key-file names a text file that can be read, {file} is none ({error}); check the path"
            ) from error
    else:
        return None
    if not key.strip():
        raise RecipeError(f"a key has at least one character, {place} holds none; put the key there")
    return key.strip()


def _public_names(names: list[str], *, count: int) -> list[str]:
    """The names of --name, checked."""
    if len(names) > count:
        raise RecipeError(
            f"--name is given once for each model, got {len(names)} for {count}; leave some out"
        )
    for name in names:
        if not (name.isprintable() and 0 < len(name.strip()) == len(name) <= 200):
            raise RecipeError(
                f"--name is 1 to 200 characters that can be printed, got {name!a}; choose another"
            )
    return names


def _public_name(model: str) -> str:
    """What clients call a model: its name, or for a folder of this machine the run's name, never its path.

    A checkpoint's name is behind its run's: `runs/demo/checkpoints/step-000030` is "demo-step-000030".
    """
    if not Path(model).exists() and not os.path.isabs(model):
        return model
    path = Path(os.path.abspath(model))
    if path.name == "final":
        return path.parent.name or path.name
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}-{path.name}"
    return path.name or "model"


def _local(
    name: str | None,
    *,
    public_name: str | None,
    frame: str | None,
    max_pixels: int | None,
    max_queue: int,
    max_batch: int,
) -> Engine:
    from opengrit.inference.grounder import Grounder
    from opengrit.serving.local import LocalEngine

    name = name or options.PACKAGED
    if name.startswith(("http://", "https://")):
        raise RecipeError(
            f"an address is named with --endpoint, got {name!r} as the model; write --endpoint {name}"
        )
    if "OMP_NUM_THREADS" not in os.environ:
        # A core for the requests: threads that wait for each other at every step stop whenever another thread
        # takes one of their cores.
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
    grounder = Grounder.load(name, frame=frame, max_pixels=max_pixels)
    called = public_name or _public_name(name)
    return LocalEngine(grounder, name=called, max_queue=max_queue, max_batch=max_batch)


def _remote(
    url: str,
    key_env: str,
    name: str | None,
    *,
    public_name: str | None,
    frame: str | None,
    max_pixels: int | None,
    max_queue: int,
    max_batch: int,
) -> Engine:
    from opengrit.core.boxes import Size
    from opengrit.grounding.frames import frame_for
    from opengrit.inference.grounder import Grounder
    from opengrit.sampling.endpoint import EndpointSampler, ResizeRule
    from opengrit.serving.remote import RemoteEngine

    sampler = EndpointSampler.connect(
        url, model=name, frame=frame, max_pixels=max_pixels, api_key_env=key_env, concurrency=max_batch
    )
    grounder = Grounder(sampler, frame=sampler.frame, model=sampler.model, lock=nullcontext())
    resize = ResizeRule(frame_for(sampler.frame, Size(1, 1)).unit, max_pixels=max_pixels)
    called = public_name or _public_name(sampler.model)
    return RemoteEngine(
        grounder, name=called, max_queue=max_queue, max_live=max_batch, seen_size_of=resize.seen_size
    )
