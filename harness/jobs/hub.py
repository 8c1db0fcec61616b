"""A repository of the Hugging Face hub -> one of its files: from the cache, where it does not change, or downloaded."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import JobError


def download(repository: str, files: Sequence[str], *, what: str, remedy: str) -> Path:
    """Return the first of some files that a repository has.

    Its metadata is requested first, once: without an answer, the hub's client would try again for half a minute.
    Raises `JobError` if there is none, or no answer.
    """
    import huggingface_hub as hub  # noqa: PLC0415 -- only where there is no folder of weights
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError  # noqa: PLC0415

    cached_file = next(cached(repository, files), None)
    if cached_file is not None:
        return cached_file
    reason = "the hub has no such file"
    for file in files:
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, file), timeout=hub.constants.HF_HUB_ETAG_TIMEOUT)
            return Path(hub.hf_hub_download(repository, file))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # the connection broke after the metadata
                reason = "the hub does not answer"
                break
        except Exception as error:  # noqa: BLE001 -- which errors the client lets through differs between its versions
            reason = "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else first_line(error)
            break
    raise JobError(f"{what} could not be downloaded from the hub ({reason}); {remedy}")


def cached(repository: str, files: Sequence[str], *, cache_dir: Path | None = None) -> Iterator[Path]:
    """Yield those of some files of a repository that were downloaded before."""
    import huggingface_hub as hub  # noqa: PLC0415

    paths = (hub.try_to_load_from_cache(repository, file, cache_dir=cache_dir) for file in files)
    yield from (Path(path) for path in paths if isinstance(path, str))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
