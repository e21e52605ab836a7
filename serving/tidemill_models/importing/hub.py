"""A repository of a Hugging Face hub as a source. Only the files that are needed are fetched.

They go into the hub library's own cache, where a download that was cut goes on at the next try; HF_ENDPOINT, HF_HOME,
HF_TOKEN and the rest of that library's variables hold.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars

from tidemill_models.errors import ModelImportError
from tidemill_models.importing.staging import check_space

_REFERENCE = re.compile(r"hf:(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,120}))?", re.ASCII)


class HubSource:
    """The files of one commit."""

    is_shared = True

    def __init__(self, reference: str) -> None:
        """`reference` is hf:owner/name or hf:owner/name@revision. Raises ModelImportError."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ModelImportError(f"{reference[:200]!r} is not hf:owner/name or hf:owner/name@revision.")
        self.repository = match["repository"]
        self._revision = match["revision"] or "main"
        self.title = reference
        self._api = HfApi()
        if not sys.stderr.isatty():
            disable_progress_bars()

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
        """In the cache, fetched or taken up where it was cut."""
        cache = Path(constants.HF_HUB_CACHE)
        cache.mkdir(parents=True, exist_ok=True)
        with self._told():
            known = hf_hub_download(self.repository, name, revision=self.commit, dry_run=True)
            if known.will_download:
                check_space(cache, self.files[name])
            return Path(hf_hub_download(self.repository, name, revision=self.commit)).resolve()

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
