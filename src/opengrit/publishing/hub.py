"""Upload of an exported folder to a repository of the hub, through `huggingface_hub`."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from opengrit.core.errors import RunError, first_line


def check_push(name: str, *, hub: HfApi) -> None:
    """Raise RunError where a folder could not be uploaded under that name: no such name, no token, or it is taken.

    Asks the hub one question, so that nothing is exported in vain.
    """
    try:
        validate_repo_id(name)
        owner, _, repository = name.partition("/")
    except HFValidationError as error:
        raise RunError(
            f"a repository of the hub is owner/name, got {name!r} ({first_line(error)}); change --push"
        ) from error
    if not owner or not repository:
        raise RunError(f"a repository of the hub is owner/name, got {name!r}; write the owner too in --push")
    if not (hub.token or get_token()):
        raise RunError(
            f"an upload needs a token that may write, none is set for {hub.endpoint}; run `hf auth login`, or set HF_TOKEN"
        )
    try:
        exists = hub.repo_exists(name)
    except (OSError, HfHubHTTPError) as error:
        raise _failed(
            name, hub, error, remedy="check the network and the token, or leave out --push"
        ) from error
    if exists:
        raise RunError(f"an upload needs a new repository, {name} exists; name another one with --push")


def push(folder: Path, name: str, *, public: bool, hub: HfApi) -> str:
    """Create the repository, private unless `public`, and upload the folder in one commit; the address of its page.

    Raises RunError where the hub refuses or cannot be reached; the folder is as it was.
    """
    again = f"{folder} is unchanged: upload it with `hf upload {name} {folder}` when that is fixed"
    try:
        hub.create_repo(name, private=not public)
        hub.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Exported by OpenGRIT, with the card of its run"
        )
    except (OSError, ValueError, RuntimeError, HfHubHTTPError) as error:
        raise _failed(name, hub, error, remedy=again) from error
    return f"{hub.endpoint}/{name}"


def _failed(name: str, hub: HfApi, error: Exception, *, remedy: str) -> RunError:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    what = f"answered {status} for {name}" if status else f"failed for {name}"
    why = {401: "the token is not known", 403: "the token may not write there", 409: "the name is taken"}
    reason = why.get(status or 0) or first_line(error)
    return RunError(f"an upload needs a hub that accepts it, {hub.endpoint} {what} ({reason}); {remedy}")
