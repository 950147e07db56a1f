"""
The Python that instances find as ``python3``: this environment's own, where they may read it.

Instances of a root server run as other users. An interpreter below a private home folder (for
example ``/root``) is out of their reach; then a mirror is made of hard links (copies where the
file system differs), which costs a second and no disk. The host's permissions are not changed.
"""

import os
import shutil
import stat
import sys
import sysconfig
from pathlib import Path

_SKIPPED = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "ensurepip"})


def guest_python_folder(home: Path, *, other_user: bool) -> Path:
    """Return the folder to put first into a guest's PATH; it holds ``python3``."""
    own = Path(sys.prefix) / "bin"
    if not other_user:
        return own
    wanted = (Path(sys.executable), Path(sysconfig.get_paths()["stdlib"], "os.py"))
    if all(is_reachable(path) for path in wanted) and is_reachable(_site_packages()):
        return own
    return _mirror(home)


def is_reachable(path: Path) -> bool:
    """Answer whether every user may read this file, all links and folders on the way included."""
    seen = 0
    while path.is_symlink() and seen < 40:
        if not _folders_open(path.parent):
            return False
        path = path.parent / path.readlink()
        seen += 1
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    return mode & needed == needed and _folders_open(path.parent)


def _folders_open(folder: Path) -> bool:
    absolute = folder.absolute()
    for part in (*absolute.parents, absolute, *absolute.resolve().parents):
        try:
            if not part.stat().st_mode & stat.S_IXOTH:
                return False
        except OSError:
            return False
    return True


def _site_packages() -> Path:
    return Path(sysconfig.get_paths()["purelib"])


def _mirror(home: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = home / "python"
    binary = base / "bin" / version
    _link_tree(Path(sysconfig.get_paths()["stdlib"]), base / "lib" / version, _SKIPPED)
    for library in Path(sys.base_prefix, "lib").glob("libpython*"):
        _link_file(library, base / "lib" / library.name)
    _place_interpreter(Path(sys.executable).resolve(), binary)
    site = _site_packages()
    venv = home / "venv"
    place = venv / "lib" / version / "site-packages"
    place.parent.mkdir(parents=True)
    if is_reachable(site):
        place.symlink_to(site)
    else:
        _link_tree(site, place, frozenset())
    (venv / "bin").mkdir()
    for name in ("python3", "python", version):
        (venv / "bin" / name).symlink_to(binary)
    config = f"home = {binary.parent}\ninclude-system-site-packages = false\n"
    (venv / "pyvenv.cfg").write_text(config, encoding="utf-8")
    return venv / "bin"


def _place_interpreter(source: Path, target: Path) -> None:
    """Copy the program and let it find its own library beside it, not in the private folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = str(Path(sys.base_prefix, "lib")).encode() + b"\0"
    new = b"$ORIGIN/../lib\0"
    content = source.read_bytes()
    if len(new) <= len(old):
        content = content.replace(old, new.ljust(len(old), b"\0"))
    target.write_bytes(content)
    target.chmod(0o755)


def _link_tree(source: Path, target: Path, skipped: frozenset[str]) -> None:
    for folder, names, files in os.walk(source, followlinks=True):
        names[:] = [name for name in names if name not in skipped]
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, mode=0o755)
        for name in files:
            _link_file(Path(folder, name), place / name)


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except FileNotFoundError:
        return
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
