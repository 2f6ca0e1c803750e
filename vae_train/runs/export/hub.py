"""Uploads an export to the Hugging Face Hub."""

import re
from pathlib import Path

from vae_train.util.errors import ErrorDetail, RunError
from vae_train.util.text import first_line

NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def hub_errors(name: str) -> list[ErrorDetail]:
    """Reports a name that is not that of a repository, and a missing login. Needs huggingface_hub.

    Args:
        name: the repository, "owner/name".
    """
    import huggingface_hub

    where = f"hub={name}"
    if not NAME.fullmatch(name):
        return [ErrorDetail(where, "is not a repository; write hub=owner/name")]
    if huggingface_hub.get_token() is None:
        return [ErrorDetail(where, "needs a login; run hf auth login, or set HF_TOKEN")]
    return []


def upload(folder: Path, name: str, private: bool) -> str:
    """Uploads a folder, and creates the repository if it does not exist.

    Args:
        folder: the export.
        name: the repository, "owner/name".
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        RunError: the upload failed.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model of vae_train")
    except Exception as error:  # network errors of several libraries
        raise RunError(f"hub={name}: {first_line(error)}; the export itself is in {folder}") from error
    return str(url)
