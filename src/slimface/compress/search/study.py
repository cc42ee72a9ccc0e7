"""Study: where a search keeps what it has found, in Optuna's own storage.

A journal file in the run folder takes several processes of one machine; a database takes several
machines. Whatever was finished when a process died is there, and nothing else counts.
"""

import logging
import os
import socket
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimface.errors import DataError, MissingError, ProtocolError, UsageError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

JOURNAL = "study.journal"
"""The file in the run folder."""

_OWNER = "worker"
_ORPHAN_SECONDS = 60.0
_SILENT_SECONDS = 3600.0


def open_study(
    place: Path | str,
    name: str,
    identity: Mapping[str, str],
    directions: Sequence[str] = ("minimize",),
) -> "Study":
    """Open a study, or begin it.

    Args:
        place: A journal file, or the URL of a database (``sqlite:///study.db``,
            ``postgresql://…``).
        name: Of the study, in a storage that may hold several.
        identity: What must be equal for results to be comparable: what it is called -> its
            fingerprint.
        directions: ``minimize`` or ``maximize`` for each objective.

    Raises:
        ProtocolError: The study is of another model, other pictures or other settings.
        DataError: The file is damaged, or is no study.
        MissingError: Optuna or the database's driver is not installed.
        UsageError: The database cannot be reached.
    """
    optuna = _optuna()
    storage = _storage(optuna, place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study: Study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=list(directions),
                load_if_exists=True,
            )
        known = study.user_attrs
    except Exception as error:
        raise _unreadable(place, error) from error
    if len(study.directions) != len(directions):
        raise ProtocolError(
            f"{place}: the study {name!r} has {len(study.directions)} objectives, not "
            f"{len(directions)}.\nChoose another run folder or study."
        )
    for what, fingerprint in identity.items():
        if what not in known:
            study.set_user_attr(what, fingerprint)
        elif known[what] != fingerprint:
            raise ProtocolError(
                f"{place}: the study {name!r} has {len(study.get_trials(deepcopy=False))} "
                f"candidates of {_article(what)} ({_short(known[what])}, here "
                f"{_short(fingerprint)}).\nIts results do not hold here. Choose another run "
                "folder, or repeat the command that began it."
            )
    return study


def finished(study: "Study") -> list["FrozenTrial"]:
    """Return the trials that are complete, in their order."""
    from optuna.trial import TrialState

    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def running(study: "Study") -> list["FrozenTrial"]:
    """Return the trials that somebody works on; those of dead processes count as failed from now.

    A process of this machine is dead if it is not there. One of another machine is taken for dead
    after an hour.
    """
    from optuna.trial import TrialState

    alive = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_alive(trial):
            alive.append(trial)
        else:
            log.info("candidate %d was begun by a process that is gone", trial.number)
            study.tell(trial.number, state=TrialState.FAIL)
    return alive


def _is_alive(trial: "FrozenTrial") -> bool:
    note = trial.user_attrs.get(_OWNER, "")
    begun = trial.datetime_start or datetime.now()
    age = (datetime.now() - begun).total_seconds()
    if not note:
        return age < _ORPHAN_SECONDS
    host, _, process = note.rpartition(":")
    if host != socket.gethostname():
        return age < _SILENT_SECONDS
    if int(process) == os.getpid():
        # This process works on one trial at a time, and asks only between two.
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def owner() -> dict[str, str]:
    """Return the note that a process leaves on the trial it works on."""
    return {_OWNER: f"{socket.gethostname()}:{os.getpid()}"}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingError(
            "A search needs the package optuna, which is not installed.\n"
            "Install it with: pip install 'slimface[search]'"
        ) from error
    # Its own messages say what ours say.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _storage(optuna: Any, place: Path | str) -> "BaseStorage":
    if isinstance(place, str):
        try:
            storage: BaseStorage = optuna.storages.RDBStorage(place)
        except ImportError as error:
            raise MissingError(
                f"{place} needs the package {error.name}, which is not installed.\n"
                f"Install it with: pip install {error.name}"
            ) from error
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"The database {place} cannot be opened: {reason}\n"
                "Write it like sqlite:///study.db or postgresql://user@host/name."
            ) from error
        return storage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    # A killed process may leave its lock. Two that wait for it would otherwise lose patience at
    # the same moment, and the second would break the lock that the first has just taken.
    patience = 15 + os.getpid() % 15
    _mend(place, JournalFileSymlinkLock(str(place), grace_period=patience))
    try:
        journal: BaseStorage = optuna.storages.JournalStorage(JournalFileBackend(str(place)))
    except Exception as error:
        raise _unreadable(place, error) from error
    return journal


def _mend(path: Path, lock: Any) -> None:
    """Cut off a last line that a killed process left half-written, so that others can follow."""
    if not path.exists():
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a study.\nRemove it or choose another place.")
    lock.acquire()
    try:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log.warning("%s: a half-written last line is dropped", path)
            with path.open("r+b") as file:
                file.truncate(whole)
    finally:
        # Whoever broke the lock meanwhile found the same half line.
        with suppress(RuntimeError):
            lock.release()


def _unreadable(place: Path | str, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(
        f"{place} is damaged or holds no study: {reason}.\n"
        "Move it away to begin anew, or choose another run folder."
    )


def _article(what: str) -> str:
    return f"other {what}" if what.endswith("s") else f"another {what}"


def _short(fingerprint: str) -> str:
    return fingerprint[:12]
