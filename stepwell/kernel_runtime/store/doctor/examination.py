"""Everything that the doctor looks at, in the order in which it is told; nothing is changed but damaged value files, which are set aside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from stepwell.kernel_runtime.errors import StoreDamagedError, StoreError
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG
from stepwell.kernel_runtime.store.catalog.lease import SEAL, read_seal
from stepwell.kernel_runtime.store.doctor import surroundings
from stepwell.kernel_runtime.store.doctor.contents import (
    OLD,
    CheckedCatalog,
    CheckedFile,
    Finding,
    Progress,
    Rebuilt,
    check_catalog,
    check_files,
    counted,
    leftovers,
    rebuild,
    remove,
    remove_orphans,
)
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.checked import set_aside
from stepwell.kernel_runtime.store.objects.value_files import value_files
from stepwell.kernel_runtime.store.trouble import spare, trouble, with_room
from stepwell.kernel_runtime.text import size_text


def examine(
    directory: Path,
    *,
    follow: bool = True,
    full: bool = True,
    clean: bool = False,
    mend: bool = False,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Yield what is found, one after the other; the long part, the value files, comes last but one.

    Parameters
    ----------
    directory
        The store directory.
    follow
        Whether it may be a link: where the user named this very path.
    full
        Whether every byte of every value file is checked; else only that they are there.
    clean
        Whether what is surely garbage is removed.
    mend
        Whether the catalog is rebuilt.
    progress
        Called while value files are checked.

    Raises
    ------
    UntrustedStoreError
        If the directory has something in it that could reach out of it.
    StoreError
        If there is no store, it cannot be rebuilt, or the machine refuses something.
    """
    try:
        yield from _examined(directory, follow=follow, full=full, clean=clean, mend=mend, progress=progress)
    except Exception as error:
        found = trouble(error, f"the store {directory} cannot be examined")
        if found is None:
            raise
        raise found from error


def _examined(
    directory: Path, *, follow: bool, full: bool, clean: bool, mend: bool, progress: Progress | None
) -> Iterator[Finding]:
    folder = Folder(directory.absolute(), follow=follow)
    try:
        folder.examine()
        there = any(folder.exists(name) for name in (CATALOG, SEAL, "objects"))
    except (FileNotFoundError, NotADirectoryError):
        there = False
    if not there:
        raise StoreError(
            f"there is no store in {folder.path}",
            remedy="name the directory that has catalog.duckdb in it: --store DIR",
        )
    yield surroundings.versions()
    yield surroundings.mount(folder.path)
    writable = surroundings.permissions(folder)
    yield writable
    usable = writable.status != "unusable"
    if usable:
        yield _locks(folder)
    key, own = surroundings.key()
    yield key
    yield surroundings.disk(folder.path)
    if not usable:
        return
    files: list[CheckedFile] | None = None
    if mend:
        files = list(check_files(folder, progress))
        with spare(folder):
            rebuilt = rebuild(folder, files)
        yield _rebuilt(rebuilt)
    catalog, finding = _catalog(folder)
    yield finding
    if full or mend:
        files = files if files is not None else list(check_files(folder, progress))
        yield _values(folder, files, catalog, own)
    if catalog is not None:
        yield _missing(folder, catalog)
        yield _orphans(folder, catalog, clean=clean)
    yield _leftovers(folder, clean=clean)


def _locks(folder: Folder) -> Finding:
    try:
        return with_room(folder, lambda: surroundings.locks(folder))
    except StoreError as error:
        return Finding("locks", "warning", error.what, error.remedy, {"why": error.where})


def _catalog(folder: Folder) -> tuple[CheckedCatalog | None, Finding]:
    try:
        found = with_room(folder, lambda: check_catalog(folder))
    except StoreDamagedError as error:
        return None, Finding("catalog", "unusable", error.what, error.remedy, {"why": error.where})
    except StoreError as error:
        return None, Finding("catalog", "unusable", error.what, error.remedy, {"why": error.where})
    seal = read_seal(folder)
    facts = {**found.rows, "commits": found.commits, "bytes": folder.stat(CATALOG).st_size}
    text = (
        f"all of its {len(found.rows)} tables can be read: {counted(found.rows['materializations'], 'materialization')}, "
        f"{counted(found.rows['runs'], 'run')}, {size_text(facts['bytes'])}"
    )
    if seal is None and found.commits:
        return found, Finding(
            "catalog",
            "warning",
            f"{text}; its seal is gone, so lost commits could not be seen",
            "the next commit makes it",
            facts,
        )
    return found, Finding("catalog", "ok", text, facts=facts)


def _values(folder: Folder, files: list[CheckedFile], catalog: CheckedCatalog | None, own: bytes) -> Finding:
    damaged = [file for file in files if file.state == "damaged"]
    for file in damaged:
        set_aside(folder, file.name)
    foreign = sum(_signed_by_another(folder, file, own) for file in files)
    unreadable = sum(file.state == "unreadable" for file in files)
    size = sum(file.size for file in files)
    facts = {
        "files": len(files),
        "bytes": size,
        "damaged": [file.name for file in damaged],
        "foreign": foreign,
        "unreadable": unreadable,
    }
    more = f"; {counted(foreign, 'file')} signed by another key" if foreign else ""
    more += f"; {counted(unreadable, 'file')} that cannot be read here" if unreadable else ""
    if damaged:
        keys = sorted({catalog.keys[file.name] for file in damaged if file.name in catalog.keys}) if catalog else []
        shown = f" (of {', '.join(keys[:5])}{' and more' if len(keys) > 5 else ''})" if keys else ""
        return Finding(
            "values",
            "problem",
            f"{len(damaged)} of {counted(len(files), 'value file')} damaged{shown}: set aside, they count as missing{more}",
            "they are computed again when they are needed; if it happens again, check the disk",
            {**facts, "keys": keys},
        )
    remedy = "they count as missing: let STEPWELL_KEY_FILE name the key of who wrote them" if foreign else ""
    return Finding(
        "values",
        "warning" if foreign or unreadable else "ok",
        f"every byte of {counted(len(files) - unreadable, 'value file')} ({size_text(size)}) is as it was written{more}",
        remedy,
        facts,
    )


def _signed_by_another(folder: Folder, file: CheckedFile, own: bytes) -> bool:
    """Tell whether a pickle carries the signature of a key other than this user's."""
    if not file.name.endswith(".pickle") or file.state not in ("whole", "foreign"):
        return False
    try:
        head = folder.read(f"objects/{file.name}", 24)
    except OSError:
        return False
    return head[16:24] != own


def _missing(folder: Folder, catalog: CheckedCatalog) -> Finding:
    there = {name: found.st_size for name, found in value_files(folder)}
    gone = sorted(name for name, size in catalog.values.items() if there.get(name, -1) < size)
    keys = sorted({catalog.keys[name] for name in gone})
    if gone:
        return Finding(
            "missing",
            "warning",
            f"{counted(len(gone), 'value')} of {', '.join(keys[:5])}{' and more' if len(keys) > 5 else ''} without a whole file",
            "nothing is to be done: they are computed again when they are needed",
            {"files": gone, "keys": keys},
        )
    return Finding(
        "missing",
        "ok",
        f"{counted(len(catalog.values), 'value')} with a file of their own: every file is there; smaller values lie in the catalog",
    )


def _orphans(folder: Folder, catalog: CheckedCatalog, *, clean: bool) -> Finding:
    now = time.time()
    orphans = {name: entry for name, entry in value_files(folder) if name not in catalog.values}
    found = list(orphans.values())
    old = [entry.st_size for entry in found if now - entry.st_mtime > OLD]
    if clean and old:
        count, size = remove_orphans(folder, [name for name, entry in orphans.items() if now - entry.st_mtime > OLD])
        return Finding(
            "orphans",
            "ok",
            f"removed {counted(count, 'value file')} without a row, {size_text(size)}",
            facts={"removed": count, "bytes": size},
        )
    facts = {"files": len(found), "bytes": sum(entry.st_size for entry in found), "old": len(old)}
    if old:
        return Finding(
            "orphans",
            "warning",
            f"{counted(len(old), 'value file')} without a row, {size_text(sum(old))}: their writers died",
            "stepwell doctor --clean removes them",
            facts,
        )
    young = f"; {counted(len(found), 'value file')} may be being recorded just now" if found else ""
    return Finding("orphans", "ok", f"no value file lacks its row{young}", facts=facts)


def _leftovers(folder: Folder, *, clean: bool) -> Finding:
    found = leftovers(folder)
    if clean and found:
        count, size = remove(folder, found)
        return Finding(
            "leftovers",
            "ok",
            f"removed {counted(count, 'file')} of dead processes and damaged values, {size_text(size)}",
            facts={"removed": count, "bytes": size},
        )
    size = sum(each.size for each in found)
    if found:
        return Finding(
            "leftovers",
            "warning",
            f"{counted(len(found), 'file')} of dead processes and damaged values, {size_text(size)}",
            "stepwell doctor --clean removes them",
            {"files": [each.name for each in found], "bytes": size},
        )
    return Finding("leftovers", "ok", "dead processes left nothing behind")


def _rebuilt(found: Rebuilt) -> Finding:
    rows = found.salvaged.rows
    kept = f"; the old one is kept: {', '.join(path.name for path in found.kept)}" if found.kept else ""
    read = f"{counted(rows.get('materializations', 0), 'materialization')} and {counted(rows.get('runs', 0), 'run')} were read from the old one"
    facts = {
        "salvaged": rows,
        "unread": found.salvaged.unread,
        "from_files": found.from_files,
        "only_loadable": found.only_loadable,
        "distrusted": found.distrusted,
        "complete": found.complete,
        "kept": [str(path) for path in found.kept],
    }
    if found.complete:
        return Finding("rebuild", "ok", f"a new catalog is in place; nothing was lost: {read}{kept}", facts=facts)
    parts = [
        f"{read if found.salvaged.opened else 'nothing could be read from the old one'}",
        f"{counted(found.from_files, 'materialization')} came back from value files",
        *([f"{', '.join(found.salvaged.unread)} could not be read"] if found.salvaged.unread else []),
        *([f"{counted(found.only_loadable, 'value')} can be loaded but not reused"] if found.only_loadable else []),
        *([f"{counted(found.distrusted, 'older result')} will not be reused"] if found.distrusted else []),
    ]
    return Finding(
        "rebuild",
        "warning",
        f"a new catalog is in place: {'; '.join(parts)}{kept}",
        "lost for good: small values, the history of runs, and what pointed to a value stored before; they are computed again",
        facts,
    )
