"""The command that serves: `opengrit serve`."""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opengrit.cli.models import FrameOption, MaxPixelsOption
from opengrit.core.errors import RecipeError
from opengrit.core.output import settle_output

if TYPE_CHECKING:
    from opengrit.serving.app import ServeSettings
    from opengrit.serving.engine import Engine

_PACKAGED = "tiny-qwen2.5-vl"
_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            help=f"Packaged model, run folder, model folder, adapter or hub id (default: {_PACKAGED}); "
            "with --endpoint the model's name there."
        ),
    ] = None,
    model_option: Annotated[str | None, typer.Option("--model", help="The same as MODEL.")] = None,
    compare: Annotated[
        str | None, typer.Option(help="A second model; the page asks both and shows them side by side.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Stand in front of an OpenAI-compatible server (vLLM): http://host:8000/v1."),
    ] = None,
    endpoint_key_env: Annotated[
        str, typer.Option(help="Environment variable that holds the endpoint's key.")
    ] = "OPENAI_API_KEY",
    frame: FrameOption = None,
    max_pixels: MaxPixelsOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 7860,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key clients must send.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File that holds the key clients must send.")
    ] = None,
    trust_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name this server goes by (behind a proxy or a tunnel); may be repeated."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host from which a picture's address is fetched (none otherwise; never from private addresses); "
            "may be repeated."
        ),
    ] = None,
    max_queue: Annotated[
        int, typer.Option(min=0, help="Questions that may wait; the next one gets 429 and Retry-After.")
    ] = 64,
    max_batch: Annotated[int, typer.Option(min=1, help="Questions answered together.")] = 32,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest text that may be asked for, in tokens.")
    ] = 4096,
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Seconds an answer may take, waiting included; then 504.")
    ] = 120.0,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that answers under way get when the server is stopped.")
    ] = 10.0,
    page: Annotated[bool, typer.Option("--page/--no-page", help="The page at /, or the API alone.")] = True,
) -> None:
    """Serve a model: a page for people at /, an API for programs at /v1.

    POST /v1/ground answers with boxes; POST /v1/chat/completions speaks OpenAI's language, so the openai package, LangChain
    and the like work with base_url http://127.0.0.1:7860/v1. /healthz says whether it is up, /metrics counts for Prometheus.
    Questions that come together are answered together. Ctrl-C or SIGTERM lets answers under way finish.

    It listens on this machine alone and fetches nothing unless told otherwise. With a key, programs send it as
    Authorization: Bearer KEY, and a browser asks for it as a password (any user name).

    Examples:

        opengrit serve runs/demo --compare tiny-qwen2.5-vl

        MY_KEY=... opengrit serve runs/demo --host 0.0.0.0 --api-key-env MY_KEY

        opengrit serve my-3b --endpoint http://gpu:8000/v1 --frame qwen2_5_vl

        curl -F image=@dogs.png -F question="How many dogs are there?" \\
            http://127.0.0.1:7860/v1/ground
    """
    if model is not None and model_option is not None:
        raise RecipeError(
            f"the model is named once, got {model!r} and {model_option!r}; leave out one of them"
        )
    _check_installed(page)
    key = _api_key(api_key_env, api_key_file)
    settle_output()
    from opengrit.serving.run import address, bind, run_until_stopped

    listening = bind(host, port)  # a port that is taken is known before a model loads
    with tempfile.TemporaryDirectory(prefix="opengrit-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        names = [model or model_option, *([compare] if compare else [])]
        engines: dict[str, Engine] = {}
        for name in names:
            engine = (
                _local(name or _PACKAGED, frame, max_pixels, max_queue=max_queue, max_batch=max_batch)
                if endpoint is None
                else _remote(
                    endpoint,
                    name,
                    frame,
                    max_pixels,
                    endpoint_key_env,
                    max_queue=max_queue,
                    max_live=max_batch,
                )
            )
            if engine.name in engines:
                raise RecipeError(
                    f"--compare names another model, got {engine.name!r} twice; name another one"
                )
            engines[engine.name] = engine
        from opengrit.serving.app import ServeSettings, build_app
        from opengrit.serving.security import Access

        settings = ServeSettings(
            access=Access.bound_to(host, api_key=key, trusted=trust_host or []),
            fetch_hosts=tuple(allow_host or ()),
            deadline_seconds=deadline,
            max_new_tokens=max_new_tokens,
            grace_seconds=grace,
        )
        app = build_app(engines, settings, page=page)
        where = address(listening)
        run_until_stopped(
            app, listening, grace_seconds=grace, ready=lambda: _announce(where, engines, settings, page)
        )


def _announce(where: str, engines: dict[str, Engine], settings: ServeSettings, page: bool) -> None:
    typer.echo(f"serving {' and '.join(engines)} at {where} ({'page: /, ' if page else ''}API: /v1)")
    if settings.access.hosts is None and settings.access.api_key is None:
        typer.echo("anybody who reaches this port may ask; --api-key-env NAME asks for a key", err=True)


def _check_installed(page: bool) -> None:
    needed = (*_NEEDED, "gradio") if page else _NEEDED
    missing = [name for name in needed if not _is_there(name)]
    if missing:
        raise RecipeError(
            f"serving needs the extra serve, {', '.join(missing)} is not installed; run pip install 'opengrit[serve]'"
        )


def _is_there(name: str) -> bool:
    try:
        import_module(name)
    except ModuleNotFoundError:
        return False
    return True


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


def _local(name: str, frame: str | None, max_pixels: int | None, *, max_queue: int, max_batch: int) -> Engine:
    from opengrit.inference.grounder import Grounder
    from opengrit.serving.local import LocalEngine

    if name.startswith(("http://", "https://")):
        raise RecipeError(
            f"an address is named with --endpoint, got {name!r} as the model; write --endpoint {name}"
        )
    _leave_a_core()
    grounder = Grounder.load(name, frame=frame, max_pixels=max_pixels)
    return LocalEngine(grounder, max_queue=max_queue, max_batch=max_batch)


def _leave_a_core() -> None:
    """Keep one core for the requests, unless OMP_NUM_THREADS says how many threads the model computes with.

    Threads that wait for each other at every step stand still whenever another thread takes one of their cores.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))


def _remote(
    url: str,
    name: str | None,
    frame: str | None,
    max_pixels: int | None,
    key_env: str,
    *,
    max_queue: int,
    max_live: int,
) -> Engine:
    from opengrit.core.boxes import Size
    from opengrit.grounding.frames import frame_for
    from opengrit.inference.grounder import Grounder
    from opengrit.sampling.endpoint import EndpointSampler, Sight
    from opengrit.serving.remote import RemoteEngine

    sampler = EndpointSampler.connect(
        url, model=name, frame=frame, max_pixels=max_pixels, api_key_env=key_env, concurrency=max_live
    )
    grounder = Grounder(sampler, frame=sampler.frame, model=sampler.model, lock=nullcontext())
    sight = Sight(frame_for(sampler.frame, Size(1, 1)).unit, max_pixels=max_pixels)
    return RemoteEngine(grounder, max_queue=max_queue, max_live=max_live, seen_size_of=sight.seen_size)
