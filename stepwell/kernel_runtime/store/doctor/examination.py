"""The checks of ``stepwell doctor``, in the order in which they are reported. Damaged value files are moved to ``damaged/``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from stepwell.kernel_runtime.errors import StoreError
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
    count_text,
    leftovers,
    rebuild,
    remove,
    remove_orphans,
)
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.checked import DAMAGED, set_aside
from stepwell.kernel_runtime.store.objects.value_files import value_files
from stepwell.kernel_runtime.store.trouble import spare, trouble, with_room
from stepwell.kernel_runtime.text import size_text


def examine(
    directory: Path,
    *,
    follow: bool = True,
    full: bool = True,
    clean: bool = False,
    rebuild_catalog: bool = False,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Check a store and yield each finding as soon as it is known. The check of the value files takes the longest.

    Parameters
    ----------
    directory
        The store directory.
    follow
        True if ``directory`` may be a link; pass True only if the user named exactly this path. False to refuse a link.
    full
        True to check every byte of every value file, False to check only that the files exist and are not too short.
    clean
        True to delete garbage; False to report it without deleting it. Garbage consists of all damaged files, of value files without a catalog row
        and of leftovers of dead processes. Files of the last two kinds count as garbage only if they are older than an hour.
    rebuild_catalog
        True to rebuild the catalog before it is checked. Every byte of the value files is then checked even if ``full`` is False.
    progress
        Called after the full check of each value file; None to report no progress.

    Yields
    ------
    Finding
        The result of one check.

    Raises
    ------
    UntrustedStoreError
        If an entry of the directory could lead Stepwell to files outside the store.
    StoreError
        If there is no store, the catalog cannot be rebuilt, or the operating system refuses an operation.
    """
    try:
        yield from _examined(directory, follow=follow, full=full, clean=clean, rebuild_catalog=rebuild_catalog, progress=progress)
    except Exception as error:
        store_error = trouble(error, f"the store {directory} cannot be examined")
        if store_error is None:
            raise
        raise store_error from error


def _examined(
    directory: Path, *, follow: bool, full: bool, clean: bool, rebuild_catalog: bool, progress: Progress | None
) -> Iterator[Finding]:
    folder = Folder(directory.absolute(), follow=follow)
    try:
        folder.examine()
        exists = any(folder.exists(name) for name in (CATALOG, SEAL, "objects"))
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    if not exists:
        raise StoreError(
            f"there is no store in {folder.path}",
            remedy="name the directory that contains the file catalog.duckdb: --store DIR",
        )
    yield surroundings.versions()
    yield surroundings.mount(folder.path)
    writable = surroundings.permissions(folder)
    yield writable
    usable = writable.status != "unusable"
    if usable:
        yield _locks(folder)
    key, key_name = surroundings.key()
    yield key
    yield surroundings.disk(folder.path)
    if not usable:
        return
    files: list[CheckedFile] | None = None
    if rebuild_catalog:
        files = list(check_files(folder, progress))
        with spare(folder):
            rebuilt = rebuild(folder, files)
        yield _rebuilt(rebuilt)
    catalog, finding = _catalog(folder)
    yield finding
    if full or rebuild_catalog:
        files = files if files is not None else list(check_files(folder, progress))
        yield _values(folder, files, catalog, key_name)
    if catalog is not None:
        yield _missing_files(folder, catalog)
        yield _orphans(folder, catalog, clean=clean)
    yield _leftovers(folder, clean=clean)


def _locks(folder: Folder) -> Finding:
    try:
        return with_room(folder, lambda: surroundings.locks(folder))
    except StoreError as error:
        return Finding("locks", "warning", error.what, error.remedy, {"why": error.where})


def _catalog(folder: Folder) -> tuple[CheckedCatalog | None, Finding]:
    try:
        catalog = with_room(folder, lambda: check_catalog(folder))
    except StoreError as error:
        return None, Finding("catalog", "unusable", error.what, error.remedy, {"why": error.where})
    seal = read_seal(folder)
    facts = {**catalog.rows, "commits": catalog.commits, "bytes": folder.stat(CATALOG).st_size}
    text = (
        f"all {len(catalog.rows)} tables can be read: {count_text(catalog.rows['materializations'], 'materialization')}, "
        f"{count_text(catalog.rows['runs'], 'run')}, {size_text(facts['bytes'])}"
    )
    if seal is None and catalog.commits:
        return catalog, Finding(
            "catalog",
            "warning",
            f"{text}; the seal file of the catalog is missing, so lost commits cannot be detected",
            "no action is needed: the next commit writes the seal file again",
            facts,
        )
    return catalog, Finding("catalog", "ok", text, facts=facts)


def _values(folder: Folder, files: list[CheckedFile], catalog: CheckedCatalog | None, key_name: bytes) -> Finding:
    damaged = [file for file in files if file.state == "damaged"]
    for file in damaged:
        set_aside(folder, file.name)
    foreign = sum(_signed_by_another(folder, file, key_name) for file in files)
    unreadable = sum(file.state == "unreadable" for file in files)
    size = sum(file.size for file in files)
    facts = {
        "files": len(files),
        "bytes": size,
        "damaged": [file.name for file in damaged],
        "foreign": foreign,
        "unreadable": unreadable,
    }
    further_counts = f"; another key signed {count_text(foreign, 'file')}" if foreign else ""
    further_counts += (
        f"; {count_text(unreadable, 'file')} could not be read by this version of Stepwell or on this machine"
        if unreadable
        else ""
    )
    if damaged:
        keys = sorted({catalog.keys[file.name] for file in damaged if file.name in catalog.keys}) if catalog else []
        shown = f" (values of {', '.join(keys[:5])}{' and more' if len(keys) > 5 else ''})" if keys else ""
        return Finding(
            "values",
            "problem",
            f"damage was found in {len(damaged)} of {count_text(len(files), 'value file')}{shown}; "
            f"damaged files were moved to the folder {DAMAGED}, and their values count as missing{further_counts}",
            "check the disk if files are damaged again; the values are computed again when they are needed",
            {**facts, "keys": keys},
        )
    remedy = (
        "values that another key signed count as missing: run stepwell trust to accept them, or set STEPWELL_KEY_FILE to that key"
        if foreign
        else ""
    )
    return Finding(
        "values",
        "warning" if foreign or unreadable else "ok",
        f"every byte of {count_text(len(files) - unreadable, 'value file')} ({size_text(size)}) was checked: no damage{further_counts}",
        remedy,
        facts,
    )


def _signed_by_another(folder: Folder, file: CheckedFile, key_name: bytes) -> bool:
    """Return True if a value file is a pickle that is unsigned, or that claims to be signed with a key other than ``key_name``."""
    if not file.name.endswith(".pickle") or file.state not in ("whole", "foreign"):
        return False
    try:
        head = folder.read(f"objects/{file.name}", 24)
    except OSError:
        return False
    return head[16:24] != key_name


def _missing_files(folder: Folder, catalog: CheckedCatalog) -> Finding:
    sizes = {name: status.st_size for name, status in value_files(folder)}
    missing_names = sorted(name for name, size in catalog.values.items() if sizes.get(name, -1) < size)
    keys = sorted({catalog.keys[name] for name in missing_names})
    if missing_names:
        return Finding(
            "missing",
            "warning",
            f"the file is missing or incomplete for {count_text(len(missing_names), 'value')} of {', '.join(keys[:5])}{' and more' if len(keys) > 5 else ''}",
            "no action is needed: the values are computed again when they are needed",
            {"files": missing_names, "keys": keys},
        )
    return Finding(
        "missing",
        "ok",
        f"{count_text(len(catalog.values), 'value')} stored in files: every file exists; smaller values are stored in the catalog",
    )


def _orphans(folder: Folder, catalog: CheckedCatalog, *, clean: bool) -> Finding:
    now = time.time()
    orphans = {name: entry for name, entry in value_files(folder) if name not in catalog.values}
    statuses = list(orphans.values())
    old = [entry.st_size for entry in statuses if now - entry.st_mtime > OLD]
    if clean and old:
        count, size = remove_orphans(folder, [name for name, entry in orphans.items() if now - entry.st_mtime > OLD])
        return Finding(
            "orphans",
            "ok",
            f"removed {count_text(count, 'value file')} without a catalog row ({size_text(size)})",
            facts={"removed": count, "bytes": size},
        )
    facts = {"files": len(statuses), "bytes": sum(entry.st_size for entry in statuses), "old": len(old)}
    if old:
        return Finding(
            "orphans",
            "warning",
            f"{count_text(len(old), 'value file')} ({size_text(sum(old))}) without a catalog row: the processes that wrote them ended before their commit",
            "run stepwell doctor --clean to delete files without a catalog row",
            facts,
        )
    young = f"; {count_text(len(statuses), 'recent file')} may belong to a commit in progress" if statuses else ""
    return Finding("orphans", "ok", f"every value file older than an hour has a catalog row{young}", facts=facts)


def _leftovers(folder: Folder, *, clean: bool) -> Finding:
    files = leftovers(folder)
    if clean and files:
        count, size = remove(folder, files)
        return Finding(
            "leftovers",
            "ok",
            f"removed {count_text(count, 'file')} of dead processes or damaged values ({size_text(size)})",
            facts={"removed": count, "bytes": size},
        )
    size = sum(file.size for file in files)
    if files:
        return Finding(
            "leftovers",
            "warning",
            f"{count_text(len(files), 'file')} of dead processes or damaged values ({size_text(size)})",
            "run stepwell doctor --clean to delete such files",
            {"files": [file.name for file in files], "bytes": size},
        )
    return Finding("leftovers", "ok", "no leftovers of dead processes and no damaged values")


def _rebuilt(rebuilt: Rebuilt) -> Finding:
    rows = rebuilt.salvaged.rows
    kept_as = f"; the old catalog is kept as {' and '.join(path.name for path in rebuilt.old_files)}" if rebuilt.old_files else ""
    read = f"{count_text(rows.get('materializations', 0), 'materialization')} and {count_text(rows.get('runs', 0), 'run')} were read from the old catalog"
    facts = {
        "salvaged": rows,
        "unread": rebuilt.salvaged.unread,
        "from_files": rebuilt.from_files,
        "only_loadable": rebuilt.only_loadable,
        "distrusted": rebuilt.distrusted,
        "complete": rebuilt.complete,
        "kept": [str(path) for path in rebuilt.old_files],
    }
    if rebuilt.complete:
        return Finding("rebuild", "ok", f"a new catalog was made, and nothing was lost: {read}{kept_as}", facts=facts)
    parts = [
        f"{read if rebuilt.salvaged.could_open else 'nothing could be read from the old catalog'}",
        f"{count_text(rebuilt.from_files, 'materialization')} restored from value files",
        *([f"tables that could not be read: {', '.join(rebuilt.salvaged.unread)}"] if rebuilt.salvaged.unread else []),
        *([f"{count_text(rebuilt.only_loadable, 'value')} can be loaded but not reused"] if rebuilt.only_loadable else []),
        *([f"{count_text(rebuilt.distrusted, 'older result')} will not be reused"] if rebuilt.distrusted else []),
    ]
    return Finding(
        "rebuild",
        "warning",
        f"a new catalog was made: {'; '.join(parts)}{kept_as}",
        "no action is needed: lost values are computed again when they are needed; rows of the old catalog that could not be read are lost",
        facts,
    )
