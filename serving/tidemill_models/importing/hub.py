"""A repository of a Hugging Face hub as a source. Only the files that are needed are fetched.

The hub's library names, lists and signs; HF_ENDPOINT, HF_TOKEN and its other variables hold. The files are fetched by
`download`, since that library throws a file away when its process ends before the last byte.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, but not listed

from tidemill_models.errors import ModelImportError
from tidemill_models.importing.download import OnBytes, download
from tidemill_models.importing.staging import check_space

_REFERENCE = re.compile(r"hf:(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,120}))?", re.ASCII)


class HubSource:
    """The files of one commit."""

    is_shared = True

    def __init__(self, reference: str, downloads: Path, on_bytes: OnBytes) -> None:
        """`reference` is hf:owner/name or hf:owner/name@revision; `downloads` keeps what came until it is imported.

        Raises ModelImportError.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ModelImportError(f"{reference[:200]!r} is not hf:owner/name or hf:owner/name@revision.")
        self.repository = match["repository"]
        self._revision = match["revision"] or "main"
        self.title = reference
        self._api = HfApi()
        self._folder = downloads / self.repository.replace("/", "--")
        self._on_bytes = on_bytes

    @cached_property
    def commit(self) -> str:
        """What the revision stands for now; all files are of it."""
        with self._told():
            return str(self._api.model_info(self.repository, revision=self._revision).sha)

    @cached_property
    def files(self) -> Mapping[str, int]:
        """Listed by the hub."""
        with self._told():
            tree = self._api.list_repo_tree(self.repository, recursive=True, revision=self.commit)
            return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}

    def fetch(self, name: str) -> Path:
        """Fetched, or gone on with where an earlier import was cut."""
        if name not in self.files or ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise ModelImportError(f"{self.title} has no file {name[:255]!r}.")
        target = self._folder / self.commit / name
        self._folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            check_space(self._folder, self.files[name])
        with self._told():
            url = hf_hub_url(self.repository, name, revision=self.commit)
            etag = get_hf_file_metadata(url).etag or ""
            size = self.files[name]
            return download(
                get_session(), url, build_hf_headers(), target, size=size, etag=etag, on_bytes=self._on_bytes
            )

    def forget(self) -> None:
        """Remove what was fetched: the package holds it now."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the library raises, as a sentence."""
        place = f"{self.title} at {constants.ENDPOINT}"
        try:
            yield
        except GatedRepoError as error:
            raise ModelImportError(f"{place} is gated: accept its terms there, and set HF_TOKEN.") from error
        except RepositoryNotFoundError as error:
            raise ModelImportError(f"{place} is not there, or needs a key: set HF_TOKEN.") from error
        except RevisionNotFoundError as error:
            raise ModelImportError(f"{place} has no revision {self._revision}.") from error
        except HFValidationError as error:
            raise ModelImportError(f"{self.title} is no name of a repository: {error}.") from error
        except ModelImportError:
            raise
        except Exception as error:  # the library lets its transport's errors through, and changes the transport
            why = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise ModelImportError(f"{place} cannot be fetched: {why} (what came is kept: try again).") from error
